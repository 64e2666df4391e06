"""The scores of one set of samples, and of several sets that differ in their seed alone."""

import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace

from tdpm_cli.evaluation.metric import Score


@dataclass(frozen=True)
class Scores:
    """All scores of one set of n samples, the distance first, and the names of broken files."""

    scores: tuple[Score, ...]
    n: int
    broken: tuple[str, ...]

    @property
    def distance(self) -> Score:
        """The Fréchet or sliced Wasserstein distance."""
        return self.scores[0]

    @property
    def overall(self) -> list[Score]:
        """The scores of all samples."""
        return [score for score in self.scores if score.group == "all"]

    @property
    def classes(self) -> dict[str, Score]:
        """The scores of single classes, by class name."""
        return {score.name: score for score in self.scores if score.group == "class"}

    @property
    def pairs(self) -> list[tuple[int, int]]:
        """Numbers of samples and reference examples that the report shows side by side."""
        return [pair for score in self.scores for pair in score.pairs]


@dataclass(frozen=True)
class Merged:
    """Scores over all seeds: `overall`, and `classes` by class name. With several seeds `error` is their deviation."""

    overall: list[Score]
    classes: dict[str, Score]
    seeds: int = 1

    @property
    def all(self) -> list[Score]:
        """The scores of all samples, then those of single classes."""
        return [*self.overall, *self.classes.values()]


def merge(repeats: Sequence[Scores]) -> Merged:
    """Return mean and standard deviation over several seeds, of classes that occur with all of them; or one set."""
    common = [name for name in repeats[0].classes if all(name in one.classes for one in repeats)]
    columns = [
        [*one.overall, *_mean_of_classes([one.classes[name].value for name in common]),
         *(one.classes[name] for name in common)]
        for one in repeats
    ]  # fmt: skip
    merged = columns[0]
    if len(repeats) > 1:
        values = [[score.value for score in same] for same in zip(*columns, strict=True)]
        merged = [
            replace(score, value=statistics.fmean(same), error=statistics.stdev(same))
            for score, same in zip(columns[0], values, strict=True)
        ]
    overall = len(merged) - len(common)
    return Merged(merged[:overall], {score.name: score for score in merged[overall:]}, len(repeats))


def _mean_of_classes(values: Sequence[float]) -> list[Score]:
    return [Score(f"mean of {len(values)} classes", statistics.fmean(values))] if values else []
