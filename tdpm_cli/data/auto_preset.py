"""`--preset auto`: propose a preset that suits the data."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch

from tdpm_cli.config import presets, registry
from tdpm_cli.config.types import parse_count
from tdpm_cli.data.dataset import Dataset, FromImageFiles
from tdpm_cli.data.decode import is_grey, is_transparent, read_header
from tdpm_cli.runtime.console import print_line, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json

SAMPLED = 1000  # images, drawn at random, whose headers are read
SIDES = (32, 64, 128, 256)  # that images of different sizes are brought to
BASES = ((48, "cifar10"), (128, "celeba-64"), (256, "lsun-bedroom"))  # the preset whose networks suit a side up to this
MAX_PASSES = 2000  # over a small dataset
MAX_CONDITION_CLASSES = 1000  # beyond which classes are ignored
NATS = 32.0  # that the truncation point asks of the prior
ATTENTION_SIDE = 16  # the height of the feature map that attends to itself, or the nearest one
MIN_FEATURE_SIDE = 4  # of the deepest level


@dataclass(frozen=True)
class DataInfo:
    """What a look at the data found."""

    count: int
    channels: int
    size: tuple[int, int] | None  # (height, width) of all images; None where they differ
    side: int  # the smaller side, which all but 1 % of the images reach
    classes: list[str]
    text: str


def propose(path: Path) -> Json:
    """Return the values of a preset for the data at `path`, and print each choice with its reason.

    Raises InputError if there are no images, or if they are too small to train on.
    """
    if not path.exists():
        raise InputError(f"--data {path}: no such file or folder")
    name = registry.recognise(path, "images")
    info = look_at(registry.load("dataset", name)(path, None))
    shape, shape_reason = _shape(info)
    base = next(preset for side, preset in BASES if max(shape) <= side)
    values = presets.read_preset(base)
    backbone, train = presets.section_of(values, "backbone"), presets.section_of(values, "train")
    mult = _levels(cast(list[int], backbone["mult"]), shape)
    attention = min((shape[0] >> level for level in range(len(mult))), key=lambda side: abs(side - ATTENTION_SIDE))
    is_classed = 2 <= len(info.classes) <= MAX_CONDITION_CLASSES
    duration = parse_count(str(train["duration"]))
    assert isinstance(duration, int), "presets state their duration"
    duration = min(duration, MAX_PASSES * info.count)
    values |= {
        "preset": f"auto-{path.resolve().stem}",
        "data": {"name": name},
        "space": {"name": "pixels", "shape": [info.channels, *shape]},
        "condition": {"name": "labels", "classes": len(info.classes)} if is_classed else {"name": "none"},
        "schedule": {**presets.section_of(values, "schedule"), "truncate": {"nats": NATS}},
        "backbone": {**backbone, "mult": [*mult], "attention": [attention]},
        "train": {**train, "duration": duration, "flip": False},
    }
    classes = f"classes such as {', '.join(info.classes[:3])}" if is_classed else "no classes found, or too many"
    _print_choices({
        "data": (name, info.text),
        "space.shape": (str([info.channels, *shape]), shape_reason),
        "networks and recipe": (base, f"designed for images of about {max(shape)} pixels"),
        "backbone.mult": (str(mult), f"the levels to which {shape[0]} × {shape[1]} can be halved"),
        "condition": (f"labels, {len(info.classes)}" if is_classed else "none", classes),
        "schedule.truncate.nats": (f"{NATS:g}", "what the prior must supply; 25 to 40 suits short training, more long"),
        "train.duration": (
            f"{duration / 1000:g} kimg", f"the recipe's, or {MAX_PASSES:,} passes over all images if that is less"
        ),
        "train.flip": ("false", "digits and letters must not be mirrored; for faces and scenes, set it to true"),
    })  # fmt: skip
    return values


def _print_choices(choices: dict[str, tuple[str, str]]) -> None:
    table("proposed", [{"key": key, "value": value, "because": reason} for key, (value, reason) in choices.items()])
    print_line("note: change any of these with --set; --dry-run estimates the cost first")


def look_at(dataset: Dataset) -> DataInfo:
    """Look at images, of whose files some are read. Raises InputError for data that are not images."""
    classes = list(dataset.class_names)
    if isinstance(dataset, FromImageFiles):
        return _look_at_files(dataset, len(dataset), classes)
    if len(dataset.shape) != 3:
        raise InputError("--preset auto: the data are points, but this preset is for images; adapt toy-mixture")
    channels, height, width = dataset.shape
    text = f"{len(dataset):,} images of {width}×{height}"
    return DataInfo(len(dataset), channels, (height, width), min(height, width), classes, text)


def _look_at_files(dataset: FromImageFiles, count: int, classes: list[str]) -> DataInfo:
    sizes: Counter[tuple[int, int]] = Counter()
    coloured = transparent = 0
    chosen = torch.randperm(count, generator=torch.Generator().manual_seed(0))[:SAMPLED].tolist()
    for k in chosen:
        try:
            with read_header(dataset.files.content(k)) as image:
                sizes[image.height, image.width] += 1
                coloured += not is_grey(image.mode)
                transparent += is_transparent(image)
        except (OSError, ValueError):  # damaged: reading reports it
            continue
    if not sizes:
        path = dataset.files.path
        raise InputError(f"{path}: none of {len(chosen):,} images can be read; run `tdpm data verify {path}`")
    sides = sorted(min(size) for size, number in sizes.items() for _ in range(number))
    text = f"{count:,} images" + (f"; {transparent:,} of {len(chosen):,} are transparent" if transparent else "")
    size = next(iter(sizes)) if len(sizes) == 1 else None
    return DataInfo(count, 3 if coloured else 1, size, sides[len(sides) // 100], classes, text)


def _shape(info: DataInfo) -> tuple[tuple[int, int], str]:
    """Return the (height, width) to train at, and the reason."""
    if info.size and max(info.size) <= SIDES[-1] and all(side % 4 == 0 and side >= 8 for side in info.size):
        return info.size, "the size of all images"
    fitting = [side for side in SIDES if side <= info.side]
    if not fitting:
        raise InputError(
            f"--preset auto: the smaller side of the images is {info.side} pixels; expected at least {SIDES[0]}. "
            f"Enlarge them with `tdpm data prepare --upscale --resolution {SIDES[0]}`"
        )
    return (fitting[-1], fitting[-1]), f"the largest of {', '.join(map(str, SIDES))} that the images reach"


def _levels(mult: list[int], shape: tuple[int, int]) -> list[int]:
    """Return the first levels, as far as both sides can be halved to at least MIN_FEATURE_SIDE."""
    can_halve = lambda side, times: side % 2**times == 0 and side >> times >= MIN_FEATURE_SIDE
    depths = [k for k in range(1, len(mult) + 1) if all(can_halve(side, k - 1) for side in shape)]
    return mult[: depths[-1]]
