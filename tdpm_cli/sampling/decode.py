"""tdpm decode: the x_T that `tdpm encode` wrote, back to pictures."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import image_folder as folders
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.sample_batch import BatchInput, sample_batch
from tdpm_cli.sampling.settings import describe


def decode(
    encoded: Path, out: Path, model: Path | None = None, *, seed: int = 0, overwrite: bool = False, **sampling: Any
) -> None:
    """Write what the reverse chain makes of every x_T in the folder `encoded`, with a manifest and a contact sheet.

    Model, sampler and steps are those of the encoding where None. Raises InputError for input that does not fit.
    """
    before = folders.read_manifest(encoded, "encode")
    x_T = _read(encoded / folders.ARRAYS)
    coder = load(model or before["model"])
    kept = {key: before[key] for key in ("steps", "spacing", "guidance_scale", "sampler")}
    given = kept | {key: value for key, value in sampling.items() if value is not None}
    given["precision"] = folders.precision_of(out, overwrite)
    settings = coder.settings(**given)
    labels: Sequence[str] | None = [each["label"] for each in before["pictures"]]
    labels = labels if labels and labels[0] is not None else None
    clip = given["sampler"] != "ddim"  # which inversion undoes as it is
    coder.decode(x_T[:1], **given)  # what does not fit fails before a folder is made
    sources = [each["source"] for each in before["pictures"]]
    plan = describe(coder.loaded, settings, seed) | {
        "verb": "decode", "encoded": str(encoded), "given_sha256": folders.hash_of(x_T, sources)}  # fmt: skip

    def decoded(part: slice) -> Tensor:
        cond = coder.cond(part.stop - part.start, folders.among(labels, part))
        batch = BatchInput(seed, range(part.start, part.stop), cond=cond, x_t=x_T[part], clip=clip)
        return sample_batch(coder.components, settings, batch).raw.cpu()

    with folders.filling(out, plan, overwrite) as filling:
        if filling is None:
            return
        raw = filling.by_pieces("decode", len(x_T), settings.batch, decoded)
        names = [f"{k:06d}.png" for k in range(len(raw))]
        filling.write_pictures(raw, names)
        sheet = {"x_T": coder.space.to_image(coder.space.decode(x_T[:64])), "decoded": coder.space.to_image(raw)}
        pictures.save(pictures.side_by_side(sheet), out / folders.SHEET)
        filling.finish(plan, [{"file": name, "source": source} for name, source in zip(names, sources, strict=True)])
    say(f"done: {len(raw)} in {out}, sheet {out / folders.SHEET}")


def _read(path: Path) -> Tensor:
    try:
        with np.load(path, allow_pickle=False) as file:
            x_T = torch.from_numpy(np.asarray(file["x_T"], np.float32))
    except Exception as error:  # a damaged archive, or pickled objects, which are never loaded
        raise InputError(f"{path}: no x_T that can be read ({error}); make it again with `tdpm encode`") from None
    if not bool(x_T.isfinite().all()):
        raise InputError(f"{path}: x_T holds numbers that are not finite; make it again with `tdpm encode`")
    return x_T
