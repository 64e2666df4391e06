"""`tdpm interpolate`: from one sample to another through z, or from one image to another through x_T."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.runtime import grids
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.image_folder import SHEET, ImageFolder, open_image_folder, precision_of
from tdpm_cli.sampling.input_images import choose_labels, read_images, sha256_of
from tdpm_cli.sampling.model import Model, load_for_command
from tdpm_cli.sampling.options import InterpolateOptions
from tdpm_cli.sampling.settings import describe


@dataclass(frozen=True)
class Interpolation:
    """`names` of the ends, a tensor that identifies them, and `frames(k)` from end k to end k + 1."""

    names: Sequence[str]
    ends: Tensor
    frames: Callable[[int], Tensor]
    through: str


def interpolate(out: Path, options: InterpolateOptions) -> None:
    """Write the frames between each pair of neighbours, a manifest and a contact sheet of a row for each pair.

    `000000-03.png` is frame 3 of the first pair. Raises InputError for input that does not fit the model.
    """
    if (options.images is None) == (not options.seeds):
        raise InputError("expected one of --images (through x_T, between images) and --seeds (through z, between "
                         "samples)")  # fmt: skip
    model = load_for_command(options.model, options.external)
    labels = choose_labels(model, options)
    sampling = {**options.sampling, "precision": precision_of(out, options.overwrite)}
    if options.images is None:
        path = _between_samples(model, options, labels, sampling)
    else:
        sampling["sampler"] = "ddim"
        path = _between_images(model, options.images, options, labels, sampling)
    if len(path.names) < 2:
        option = "--seeds" if options.images is None else "--images"
        raise InputError(f"{option} names {len(path.names)}: it must name at least 2 to interpolate between")
    manifest = describe(model.loaded, model.settings(**sampling), 0) | {
        "command": "interpolate", "by": path.through, "frames": options.frames, "iterations": options.iterations,
        "condition": options.condition, "input_sha256": sha256_of(path.ends, path.names),
    }  # fmt: skip
    with open_image_folder(out, manifest, options.overwrite, [options.images]) as folder:
        if folder is None:
            return
        _fill(folder, path, options.frames, manifest)
    print_line(f"done: {len(path.names) - 1} · {options.frames} in {out}, through {path.through}; sheet {out / SHEET}")


def _between_samples(
    model: Model, options: InterpolateOptions, labels: Sequence[str] | None, sampling: Json
) -> Interpolation:
    seeds = options.seeds
    frames = lambda k: model.interpolate_z((seeds[k], seeds[k + 1]), options.frames, labels=labels, **sampling)
    return Interpolation([f"seed {seed}" for seed in seeds], torch.tensor(seeds), frames, "z")


def _between_images(
    model: Model, source: str, options: InterpolateOptions, labels: Sequence[str] | None, sampling: Json
) -> Interpolation:
    images = read_images(source, model, options.n)
    raw = images.raw
    frames = lambda k: model.interpolate(
        raw[k], raw[k + 1], options.frames, labels=labels, iterations=options.iterations, **sampling
    )
    return Interpolation(images.names, raw, frames, "x_T")


def _fill(folder: ImageFolder, path: Interpolation, frames: int, manifest: Json) -> None:
    """Write everything, the manifest last."""
    pairs = list(pairwise(path.names))
    compute = lambda part: path.frames(part.start)
    images = folder.compute("interpolate", len(pairs), 1, compute, unit="pairs")
    files = [[f"{k:06d}-{frame:02d}.png" for frame in range(frames)] for k in range(len(pairs))]
    folder.write_images(images, [name for row in files for name in row])
    rows = {
        f"{first} to {second}": grids.image_grid(raw, frames)
        for (first, second), raw in zip(pairs, images.split(frames), strict=True)
    }
    grids.save(grids.stacked(rows), folder.path / SHEET)
    folder.finish(manifest, [
        {"file": name, "from": first, "to": second, "share": k / (frames - 1)}
        for row, (first, second) in zip(files, pairs, strict=True) for k, name in enumerate(row)
    ])  # fmt: skip
