"""`tdpm decode`: decode noise x_T, which `tdpm encode` wrote, to images."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config import external
from tdpm_cli.runtime import grids
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import require_regular
from tdpm_cli.sampling.image_folder import ARRAY, MANIFEST, SHEET, open_image_folder, precision_of, read_manifest
from tdpm_cli.sampling.input_images import labels_of, sha256_of
from tdpm_cli.sampling.model import load_for_command
from tdpm_cli.sampling.options import DecodeOptions
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.settings import describe

OF_ENCODING = ("steps", "spacing", "guidance_scale", "sampler")  # options that the encoding's manifest supplies


def decode(encoded: Path, out: Path, options: DecodeOptions) -> None:
    """Write the image of every x_T in the folder `encoded`, a manifest and a contact sheet to `out`.

    Raises InputError for input that does not fit the model, before anything is written.
    """
    encoding = read_manifest(encoded, "encode")
    x_T = _read_x_T(encoded / ARRAY)
    where, option = str(encoded / MANIFEST), "--model"
    source = options.model or external.require(external.MODEL, encoding["model"], where, options.external, option)
    model = load_for_command(source, options.external)
    sampling = {**{key: encoding[key] for key in OF_ENCODING}, **options.sampling}
    sampling["precision"] = precision_of(out, options.overwrite)
    settings = model.settings(**sampling)
    labels = [entry.get("label") for entry in encoding["pictures"]]
    sources = [entry.get("source", "") for entry in encoding["pictures"]]
    clip = settings.sampler != "ddim"  # DDIM's inversion does not clip, so its inverse must not
    model.decode(x_T[:1], **sampling)  # raises for input that does not fit
    manifest = describe(model.loaded, settings, options.seed) | {
        "command": "decode", "encoded": str(encoded), "input_sha256": sha256_of(x_T, sources),
    }  # fmt: skip

    def decode_part(part: slice) -> Tensor:
        known = labels if labels and labels[0] is not None else None
        cond = model.cond(part.stop - part.start, labels_of(known, part))
        batch = BatchInput(options.seed, range(part.start, part.stop), cond=cond, x_t=x_T[part], clip=clip)
        return sample_batch(model.components, settings, batch).raw.cpu()

    with open_image_folder(out, manifest, options.overwrite, [encoded]) as folder:
        if folder is None:
            return
        raw = folder.compute("decode", len(x_T), settings.batch, decode_part)
        names = [f"{k:06d}.png" for k in range(len(raw))]
        folder.write_images(raw, names)
        space = model.space
        panels = {"x_T": space.to_image(space.decode(x_T[:64])), "decoded": space.to_image(raw)}
        grids.save(grids.side_by_side(panels), out / SHEET)
        folder.finish(manifest, [{"file": name, "source": source} for name, source in zip(names, sources, strict=True)])
    print_line(f"done: {len(raw)} in {out}, sheet {out / SHEET}")


def _read_x_T(path: Path) -> Tensor:
    try:
        require_regular(path)
        with np.load(path, allow_pickle=False) as file:
            x_T = torch.from_numpy(np.asarray(file["x_T"], np.float32))
    except Exception as error:  # a damaged archive, or pickled objects, which are never loaded
        raise InputError(f"{path}: no readable x_T ({error}); create it again with `tdpm encode`") from None
    if not bool(x_T.isfinite().all()):
        raise InputError(f"{path}: x_T contains numbers that are not finite; create it again with `tdpm encode`")
    return x_T
