"""`--preset auto`: a preset proposed from a look at the data."""

import io
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image

from tdpm_cli.config import presets, registry
from tdpm_cli.config.constants import parse_count
from tdpm_cli.data.dataset import Dataset, FromImageFiles
from tdpm_cli.data.decode import is_transparent
from tdpm_cli.runtime.console import say, table
from tdpm_cli.runtime.errors import InputError

LOOKED_AT = 1000  # images, drawn at random
SIDES = (32, 64, 128, 256)  # that images are brought to where they differ
BASES = ((48, "cifar10"), (128, "celeba-64"), (256, "lsun-bedroom"))  # presets whose networks suit sides up to these
PASSES = 2000  # times that a small data set is seen at most
MOST_CLASSES = 1000


@dataclass(frozen=True)
class Seen:
    """What a look at the data found: channels; the (height, width) that all have, if they do; the smaller side that
    most reach; the classes."""

    count: int
    channels: int
    size: tuple[int, int] | None
    side: int
    classes: list[str]
    text: str


def propose(path: Path) -> dict[str, Any]:
    """Plain values of a preset for the data at `path`, printed with the reason of each choice.

    Raises InputError where there is nothing, or for images too small to train on.
    """
    if not path.exists():
        raise InputError(f"--data {path}: no such file or folder")
    name = registry.recognise(path, "images")
    seen = _look(registry.load("dataset", name)(path, None))
    shape, why = _shape(seen)
    base = next(preset for most, preset in BASES if max(shape) <= most)
    plain = presets.read_preset(base)
    plain["preset"] = f"auto-{path.resolve().stem}"
    plain["data"] = {"name": name}
    plain["space"] = {"name": "pixels", "shape": [seen.channels, *shape]}
    mult = _levels(plain["backbone"]["mult"], shape)
    attention = min((shape[0] >> level for level in range(len(mult))), key=lambda height: abs(height - 16))
    plain["backbone"] |= {"mult": mult, "attention": [attention]}
    classed = 2 <= len(seen.classes) <= MOST_CLASSES
    plain["condition"] = {"name": "labels", "classes": len(seen.classes)} if classed else {"name": "none"}
    duration = parse_count(str(plain["train"]["duration"]))
    assert isinstance(duration, int), "presets state their duration"
    plain["train"] |= {"duration": min(duration, PASSES * seen.count), "flip": False}
    rows = {
        "data": (name, seen.text),
        "space.shape": (str([seen.channels, *shape]), why),
        "networks and recipe": (base, f"made for images of about {max(shape)} pixels"),
        "backbone.mult": (str(mult), f"levels that {shape[0]} × {shape[1]} can be halved to"),
        "condition": (
            f"labels, {len(seen.classes)}" if classed else "none",
            f"classes such as {', '.join(seen.classes[:3])}" if classed else "no classes found, or too many",
        ),
        "train.duration": (
            f"{plain['train']['duration'] / 1000:g} kimg",
            f"the recipe's, or {PASSES:,} times all images where that is less",
        ),
        "train.flip": ("false", "digits and words must not be mirrored; faces and scenes may: set it to true"),
    }
    table("proposed", [{"key": key, "value": value, "because": because} for key, (value, because) in rows.items()])
    say("note: change any of these by --set; --dry-run shows the cost first")
    return plain


def _look(data: Dataset) -> Seen:
    if not isinstance(data, FromImageFiles):
        raw = data[[0]][0]
        if raw.ndim != 4:
            raise InputError("--preset auto: the data are points, not images; use toy-mixture as a pattern")
        channels, height, width = raw.shape[1:]
        return Seen(len(data), channels, (height, width), min(height, width), list(data.class_names),
                    f"{len(data):,} images of {width}×{height}")  # fmt: skip
    files, sizes, coloured, transparent = data.files, Counter[tuple[int, int]](), 0, 0
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:LOOKED_AT].tolist()
    for k in chosen:
        try:
            with Image.open(io.BytesIO(files.content(k))) as image:
                sizes[image.height, image.width] += 1
                coloured += not (image.mode in ("1", "L", "LA") or image.mode.startswith("I"))
                transparent += is_transparent(image)
        except (OSError, ValueError, SyntaxError):  # damaged: reading will name it
            continue
    if not sizes:
        raise InputError(
            f"{files.path}: none of {len(chosen):,} images can be read; see `tdpm data verify {files.path}`"
        )
    sides = sorted(side for size, count in sizes.items() for side in [min(size)] * count)
    text = f"{len(data):,} images" + (
        f", of {len(chosen):,} looked at {transparent:,} transparent" if transparent else ""
    )
    return Seen(len(data), 3 if coloured else 1, next(iter(sizes)) if len(sizes) == 1 else None,
                sides[len(sides) // 100], list(data.class_names), text)  # fmt: skip


def _shape(seen: Seen) -> tuple[tuple[int, int], str]:
    """(height, width) to train at."""
    if seen.size and max(seen.size) <= SIDES[-1] and all(side % 4 == 0 and side >= 8 for side in seen.size):
        return seen.size, "the size that all images have"
    fitting = [side for side in SIDES if side <= seen.side]
    if not fitting:
        raise InputError(
            f"--preset auto: the images are {seen.side} pixels at their smaller side, and at least {SIDES[0]} are "
            "needed; enlarge them with `tdpm data prepare --upscale --resolution 32`"
        )
    return (fitting[-1], fitting[-1]), f"the largest of {', '.join(map(str, SIDES))} that the images reach"


def _levels(mult: list[int], shape: tuple[int, int]) -> list[int]:
    """The first levels that the sides can be halved to, down to 4 pixels."""
    possible = [
        k for k in range(1, len(mult) + 1) if all(side % 2 ** (k - 1) == 0 and side >> (k - 1) >= 4 for side in shape)
    ]
    return mult[: possible[-1]]
