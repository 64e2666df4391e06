"""tdpm interpolate: from one sample to another by way of z, or from one picture to another by way of x_T."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import image_folder as folders
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.settings import describe


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
    asked = folders.asked(coder, labels, prompts)
    given: dict[str, Any] = {key: value for key, value in sampling.items() if value is not None}
    given |= {"precision": folders.precision_of(out, overwrite)} | ({"sampler": "ddim"} if images is not None else {})
    settings = coder.settings(**given)
    way: Callable[[int], Tensor]
    if images is None:
        names, ends = [f"seed {seed}" for seed in seeds], torch.tensor(seeds)
        way = lambda k: coder.interpolate_z((seeds[k], seeds[k + 1]), frames, labels=asked, **given)
    else:
        found = folders.read(images, coder.space.raw_shape, n, [])
        names, ends = found.names, found.raw
        way = lambda k: coder.interpolate(
            ends[k], ends[k + 1], frames, labels=asked, iterations=iterations, **given
        )  # fmt: skip
    if len(names) < 2:
        raise InputError(f"{'--seeds' if images is None else '--images'}: two at least, to go from one to the other")
    by, ways = "z" if images is None else "x_T", list(pairwise(names))
    plan = describe(coder.loaded, settings, 0) | {
        "verb": "interpolate", "by": by, "frames": frames, "iterations": iterations, "asked": labels or prompts,
        "given_sha256": folders.hash_of(ends, names)}  # fmt: skip
    with folders.filling(out, plan, overwrite) as filling:
        if filling is None:
            return
        made = filling.by_pieces("interpolate", len(ways), 1, lambda part: way(part.start), unit="ways")
        files = [[f"{k:06d}-{frame:02d}.png" for frame in range(frames)] for k in range(len(ways))]
        filling.write_pictures(made, [name for row in files for name in row])
        rows = {
            f"{a} to {b}": pictures.image_grid(of, frames) for (a, b), of in zip(ways, made.split(frames), strict=True)
        }
        pictures.save(pictures.stacked(rows), out / folders.SHEET)
        filling.finish(plan, [
            {"file": name, "from": a, "to": b, "share": k / (frames - 1)}
            for row, (a, b) in zip(files, ways, strict=True) for k, name in enumerate(row)
        ])  # fmt: skip
    say(f"done: {len(ways)} · {frames} in {out}, by way of {by}; sheet {out / folders.SHEET}")
