"""tdpm interpolate: from one sample to another by way of z, or from one picture to another by way of x_T."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli import folders
from tdpm_cli.errors import InputError
from tdpm_cli.model import load
from tdpm_cli.run import pictures
from tdpm_cli.run.report import Meter, say
from tdpm_cli.sampling import describe


def interpolate(
    out: Path,
    model: Path | None = None,
    *,
    images: str | None = None,
    seeds: Sequence[int] = (),
    n: int | None = None,
    frames: int = 8,
    iterations: int = 1,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    overwrite: bool = False,
    **sampling: Any,
) -> None:
    """Write `frames` pictures for each pair of neighbours among `images`, or among `seeds`: `000000-03.png` and so on,
    with a manifest and a contact sheet of a row for each pair. Raises InputError for input that does not fit.
    """
    if (images is None) == (not seeds):
        raise InputError("give either --images, for x_T between pictures, or --seeds, for z between samples")
    coder = load(model)
    asked = folders.words(coder.condition.option, labels, prompts)
    given: dict[str, Any] = {key: value for key, value in sampling.items() if value is not None}
    ways: list[Callable[[], Tensor]]
    if images is None:
        names = [f"seed {seed}" for seed in seeds]
        ways = [partial(coder.interpolate_z, pair, frames, labels=asked, **given) for pair in pairwise(seeds)]
    else:
        found = folders.read(images, coder.space.raw_shape, n, [])
        names, given = found.names, given | {"sampler": "ddim"}
        between = partial(coder.interpolate, frames=frames, labels=asked, iterations=iterations, **given)
        ways = [partial(between, a, b) for a, b in pairwise(found.raw)]
    if not ways:
        raise InputError(f"{'--seeds' if images is None else '--images'}: two at least, to go from one to the other")
    settings = coder.settings(**given)
    made: list[Tensor] = []
    rows: dict[str, Image.Image] = {}
    with Meter("interpolate", len(ways), unit="ways") as meter:
        for (a, b), way in zip(pairwise(names), ways, strict=True):
            made.append(way())
            if not rows:
                folders.begin(out, overwrite)
            rows[f"{a} to {b}"] = pictures.strip(made[-1])
            meter.advance(1)
    files = [[f"{k:06d}-{frame:02d}.png" for frame in range(frames)] for k in range(len(made))]
    folders.write_pictures(out, torch.cat(made), [name for row in files for name in row])
    pictures.save(pictures.stacked(rows), out / folders.SHEET)
    by = "z" if images is None else "x_T"
    folders.write_manifest(out, describe(coder.loaded, settings, 0) | {"verb": "interpolate", "by": by}, [
        {"file": name, "from": a, "to": b, "share": k / (frames - 1)}
        for row, (a, b) in zip(files, pairwise(names), strict=True) for k, name in enumerate(row)
    ])  # fmt: skip
    say(f"done: {len(made)} · {frames} in {out}, by way of {by}; sheet {out / folders.SHEET}")
