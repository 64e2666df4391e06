"""`tdpm encode`: encode images to noise x_T, and show the discriminator's output for them."""

from pathlib import Path

import numpy as np
from torch import Tensor

from tdpm_cli.runtime import grids
from tdpm_cli.runtime.console import next_command, print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, replacing
from tdpm_cli.sampling.image_folder import ARRAY, SHEET, ImageFolder, open_image_folder, precision_of
from tdpm_cli.sampling.input_images import InputImages, choose_labels, labels_of, read_images
from tdpm_cli.sampling.model import Model, load_for_command
from tdpm_cli.sampling.options import EncodeOptions
from tdpm_cli.sampling.settings import describe


def encode(source: str, out: Path, options: EncodeOptions) -> None:
    """Write `x_T.npz` (x_T float32 [n, *shape]), a manifest and a contact sheet to `out`.

    Raises InputError for input that does not fit the model, before anything is written.
    """
    model = load_for_command(options.model, options.external)
    images = read_images(source, model, options.n)
    labels = choose_labels(model, options, images.labels)
    if options.seed is not None and (options.iterations != 1 or options.sampling):
        raise InputError("--seed adds noise in one step; leave out the options of the inversion")
    sampling: Json = {**options.sampling, "sampler": "ddim", "precision": precision_of(out, options.overwrite)}
    settings = model.settings(**sampling)
    inversion = f"DDIM's inversion, {settings.steps} steps · {options.iterations}"
    method = inversion if options.seed is None else "q(x_T | x_0)"
    manifest = describe(model.loaded, settings, options.seed or 0) | {
        "command": "encode", "by": method, "iterations": options.iterations, "logits": options.logits,
        "condition": options.condition, "input_sha256": images.sha256(),
    }  # fmt: skip
    logits = model.logits(images.raw, labels=labels).tolist() if options.logits else None

    def encode_part(part: slice) -> Tensor:
        raw = images.raw[part]
        if options.seed is not None:
            return model.noised(raw, seed=options.seed, first=part.start)
        return model.encode(raw, iterations=options.iterations, labels=labels_of(labels, part), **sampling)

    with open_image_folder(out, manifest, options.overwrite, [source]) as folder:
        if folder is None:
            return
        x_T = folder.compute("encode", len(images.raw), settings.batch, encode_part)
        _write(folder, model, images, x_T)
        folder.finish(manifest, [
            {"source": name, "label": labels[k % len(labels)] if labels else None}
            | ({"logit": logits[k]} if logits else {}) for k, name in enumerate(images.names)
        ])  # fmt: skip
    if logits:
        print_line(f"discriminator: {np.mean(logits):.3g} ± {np.std(logits):.3g} (above 0: data)")
    print_line(f"done: {len(x_T)} in {out / ARRAY}, by {method}\n" + next_command("tdpm decode", out, "decoded/"))


def _write(folder: ImageFolder, model: Model, images: InputImages, x_T: Tensor) -> None:
    """Write the array, and a sheet of the first images beside their x_T."""
    with replacing(folder.path / ARRAY) as part, part.open("wb") as file:
        np.savez(file, x_T=x_T.numpy())
    space = model.space
    title = f"x_T, T = {model.schedule.T}"
    panels = {"images": space.to_image(images.raw), title: space.to_image(space.decode(x_T[:64]))}
    grids.save(grids.side_by_side(panels), folder.path / SHEET)
