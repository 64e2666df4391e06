"""tdpm encode: pictures to their x_T; and how the discriminator likes them there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing
from tdpm_cli.sampling import image_folder as folders
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.settings import describe


def encode(
    images: str,
    out: Path,
    model: Path | None = None,
    *,
    n: int | None = None,
    seed: int | None = None,
    iterations: int = 1,
    logits: bool = False,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    overwrite: bool = False,
    **sampling: Any,
) -> None:
    """Write `x_T.npz` (x_T float32 [n, *shape]), a manifest and a contact sheet to `out`.

    x_T is that of DDIM's inversion, or with a `seed` x_T ~ q(x_T | x_0). `logits` adds the discriminator's of each
    picture noised to T. Raises InputError for input that does not fit, before anything is written.
    """
    coder = load(model)
    found = folders.read(images, coder.space.raw_shape, n, getattr(coder.condition, "names", []))
    asked = folders.asked(coder, labels, prompts, found.labels)
    if seed is not None and (iterations != 1 or any(value is not None for value in sampling.values())):
        raise InputError("--seed noises the pictures at once: leave the options of the inversion out")
    sampling |= {"sampler": "ddim", "precision": folders.precision_of(out, overwrite)}
    settings = coder.settings(**sampling)
    by = "q(x_T | x_0)" if seed is not None else f"DDIM's inversion, {settings.steps} steps · {iterations}"
    plan = describe(coder.loaded, settings, seed or 0) | {
        "verb": "encode", "by": by, "iterations": iterations, "logits": logits, "asked": labels or prompts,
        "given_sha256": folders.hash_of(found.raw, found.names)}  # fmt: skip
    judged = coder.logits(found.raw, labels=asked).tolist() if logits else None

    def coded(part: slice) -> Any:
        raw = found.raw[part]
        if seed is not None:
            return coder.noised(raw, seed=seed, first=part.start)
        return coder.encode(raw, iterations=iterations, labels=folders.among(asked, part), **sampling)

    with folders.filling(out, plan, overwrite) as filling:
        if filling is None:
            return
        x_T = filling.by_pieces("encode", len(found.raw), settings.batch, coded)
        with replacing(out / folders.ARRAYS) as part, part.open("wb") as file:
            np.savez(file, x_T=x_T.numpy())
        sheet = pictures.side_by_side({
            "pictures": coder.space.to_image(found.raw), f"x_T, T = {coder.schedule.T}": coder.space.to_image(
                coder.space.decode(x_T[:64]))})  # fmt: skip
        pictures.save(sheet, out / folders.SHEET)
        filling.finish(plan, [
            {"source": name, "label": folders.among(asked, slice(k, k + 1), one=True)}
            | ({"logit": judged[k]} if judged else {}) for k, name in enumerate(found.names)])  # fmt: skip
    if judged:
        say(f"discriminator: {np.mean(judged):.3g} ± {np.std(judged):.3g} (above 0: taken for data)")
    say(f"done: {len(x_T)} in {out / folders.ARRAYS}, by {by}\nnext: tdpm decode {out} decoded/")
