"""tdpm edit: pictures or rough sketches, noised to a part of T and brought back (SDEdit, Meng et al. 2022)."""

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import say, table
from tdpm_cli.sampling import image_folder as folders
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.settings import describe


def edit(
    images: str,
    out: Path,
    model: Path | None = None,
    *,
    strengths: Sequence[float] = (0.25, 0.5, 1.0),
    n: int | None = 64,
    seed: int = 0,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    overwrite: bool = False,
    **sampling: Any,
) -> None:
    """Write every picture at every strength (a share of T): `000000-0.png` is the first at the first strength.

    With a manifest and a contact sheet. Raises InputError for input that does not fit, before anything is written.
    """
    coder = load(model)
    found = folders.read(images, coder.space.raw_shape, n, getattr(coder.condition, "names", []))
    asked = folders.asked(coder, labels, prompts, found.labels)
    sampling["precision"] = folders.precision_of(out, overwrite)
    settings = coder.settings(**sampling)
    for strength in strengths:
        coder.edit(found.raw[:1], strength, labels=folders.among(asked, slice(0, 1)), **sampling)
    plan = describe(coder.loaded, settings, seed) | {
        "verb": "edit", "strengths": list(strengths), "asked": labels or prompts,
        "given_sha256": folders.hash_of(found.raw, found.names)}  # fmt: skip
    plan |= {
        "nfe": coder.tdpm.nfe(settings.steps, settings.guidance_scale) - coder.tdpm.nfe(0),
        "nfe_text": "0 + " + plan["nfe_text"].split(" + ")[1],
    }

    def edited(strength: float, part: slice) -> Tensor:
        labels = folders.among(asked, part)
        return coder.edit(found.raw[part], strength, seed=seed, first=part.start, labels=labels, **sampling)

    panels, listed, rows = {"pictures": coder.space.to_image(found.raw)}, [], []
    with folders.filling(out, plan, overwrite) as filling:
        if filling is None:
            return
        for k, strength in enumerate(strengths):
            made = filling.by_pieces(
                f"strength {strength:g}", len(found.raw), settings.batch, partial(edited, strength)
            )
            names = [f"{number:06d}-{k}.png" for number in range(len(made))]
            filling.write_pictures(made, names)
            t = max(round(strength * coder.schedule.T), 1)
            kept = folders.psnr(made, found.raw)
            panels[f"strength {strength:g}, t = {t}"] = coder.space.to_image(made)
            rows.append({
                "strength": f"{strength:g}", "t": str(t), "sigma": f"{coder.schedule.sigma(t):.3g}",
                "steps": str(min(settings.steps, t)), "PSNR to the pictures": f"{float(kept.mean()):.4g}",
            })  # fmt: skip
            listed += [{"file": name, "source": source, "strength": strength, "t": t}
                       for name, source in zip(names, found.names, strict=True)]  # fmt: skip
        pictures.save(pictures.side_by_side(panels), out / folders.SHEET)
        filling.finish(plan, listed)
    table(f"edit {images}", rows)
    say(f"done: {len(found.raw)} · {len(strengths)} in {out}, sheet {out / folders.SHEET}")
