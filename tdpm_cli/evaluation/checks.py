"""Check that samples, reference and metrics fit together, before any work is done."""

from collections.abc import Sequence

from tdpm_cli.evaluation.examples import Examples, Input, Statistics
from tdpm_cli.evaluation.metric import NamedMetric
from tdpm_cli.runtime.errors import InputError


def check_fit(samples: Input, reference: Input, points: bool, metrics: Sequence[NamedMetric]) -> None:
    """Raise InputError for samples and a reference that cannot be compared, or that lack what a metric needs."""
    sides = [side for side in (samples, reference) if isinstance(side, Examples)]
    for side in sides:
        if side.is_image == points:
            raise InputError(
                f"{samples.text} and {reference.text}: one contains images, the other points; score like with like"
            )
    for statistics in (samples, reference):
        if isinstance(statistics, Statistics):
            _check_statistics(statistics, metrics)
    needs = frozenset[str]().union(*(metric.needs for metric in metrics))
    if "labels" in needs:
        _check_classes(sides)
    if "captions" in needs:
        check_captions(samples)
    if len(sides) == 2 and sides[0].shape != sides[1].shape:
        raise InputError(
            f"{sides[0].text}: examples of {_shape_text(sides[0].shape)}, but {sides[1].text} contains "
            f"{_shape_text(sides[1].shape)}; bring both to one size and mode"
        )


def check_captions(samples: Input) -> None:
    """Raise InputError for samples without captions."""
    if not isinstance(samples, Examples) or "captions" not in samples.data.raw_condition([0]):
        raise InputError(
            f"--text: {samples.text} has no captions; put a .txt beside every image, or 'captions' in dataset.json"
        )


def check_count(source: str, count: int) -> None:
    """Raise InputError for fewer than 2 examples."""
    if count < 2:
        raise InputError(f"{source}: {count} examples; a score needs at least 2")


def _check_statistics(side: Statistics, metrics: Sequence[NamedMetric]) -> None:
    unfit = [metric.name for metric in metrics if metric.needs - {"moments"}]
    if unfit:
        raise InputError(f"{side.text}: statistics suffice for fid alone, not for {', '.join(unfit)}; name the images")


def _check_classes(sides: Sequence[Examples]) -> None:
    for side in sides:
        if not side.classes:
            raise InputError(
                f"--per-class: {side.text} has no classes, because its model is unconditional or its files are not in "
                "class folders"
            )
    if len(sides) == 2:
        ours, theirs = (side.classes for side in sides)
        if not set(ours) & set(theirs) and len(ours) != len(theirs):
            raise InputError(
                f"--per-class: {sides[0].text} has {len(ours)} classes, {sides[1].text} has {len(theirs)}, and no "
                "class name occurs in both"
            )


def _shape_text(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"{shape[0]} coordinates"
    return f"{'grey' if shape[0] == 1 else 'colour'} {shape[2]}×{shape[1]}"
