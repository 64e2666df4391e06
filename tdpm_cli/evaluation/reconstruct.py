"""tdpm reconstruct: pictures to x_t and back; what is lost, against t and steps."""

import csv
import io
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor

from tdpm_cli.evaluation.lpips import Perceptual
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime import plots
from tdpm_cli.runtime.console import say, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.sampling import image_folder as folders
from tdpm_cli.sampling.model import Model, load
from tdpm_cli.sampling.settings import describe


def reconstruct(
    images: str,
    out: Path,
    model: Path | None = None,
    *,
    steps: Sequence[int] = (4, 8, 16, 32, 64),
    at: Sequence[int] = (),
    n: int | None = 64,
    seed: int | None = None,
    iterations: int = 1,
    labels: Sequence[str] | None = None,
    prompts: Sequence[str] | None = None,
    overwrite: bool = False,
    **sampling: Any,
) -> list[dict[str, Any]]:
    """Encode to t (each of `at`; T where there is none) and decode, in as many `steps` each way; return the rows.

    By DDIM's inversion, or with a `seed` by q(x_t | x_0). Writes the pictures of the last row, table (CSV), plot, sheet
    and manifest. PSNR is the mean over pictures; LPIPS stands beside it where it can be had.
    """
    coder = load(model)
    T = coder.schedule.T
    found = folders.read(images, coder.space.raw_shape, n, getattr(coder.condition, "names", []))
    asked = folders.asked(coder, labels, prompts, found.labels)
    sampling |= {"sampler": "ddim", "precision": folders.precision_of(out, overwrite)}
    settings = coder.settings(steps=min(steps), **sampling)
    for t in at:
        coder.settings(steps=t)  # raises where t is not on the chain
    pairs = [(t, step) for t in (at or (T,)) for step in steps if step <= t]
    if not pairs:
        raise InputError(f"--steps {','.join(map(str, steps))}: more than t, which is at most {max(at or (T,))}")
    perceptual = _perceptual(found.raw)
    by = "q(x_t | x_0)" if seed is not None else f"DDIM's inversion · {iterations}"
    plan = describe(coder.loaded, settings, seed or 0) | {
        "verb": "reconstruct", "by": by, "pairs": [list(pair) for pair in pairs], "asked": labels or prompts,
        "given_sha256": folders.hash_of(found.raw, found.names)}  # fmt: skip
    coded = partial(_there_and_back, coder, found.raw, asked, seed, iterations)
    title = f"reconstruct {images}, by {by}"
    with folders.filling(out, plan, overwrite) as filling:
        if filling is None:
            rows = list(folders.read_manifest(out, "reconstruct")["rows"])
            table(title, [{key: f"{value:.4g}" for key, value in row.items()} for row in rows])
            return rows
        rows, back = [], found.raw
        for t, step in pairs:
            way = partial(coded, t, {**sampling, "steps": step})
            back = filling.by_pieces(f"t = {t}, {step} steps", len(found.raw), settings.batch, way)
            row = {"t": t, "steps": step, "psnr": _mean(folders.psnr(back, found.raw))}
            rows.append(row | ({"lpips": float(perceptual(back, found.raw).mean())} if perceptual else {}))
        _write(out, rows, seed)
        names = [f"{k:06d}.png" for k in range(len(back))]
        filling.write_pictures(back, names)
        last = f"back from t = {pairs[-1][0]} in {pairs[-1][1]} steps"
        sheet = {"pictures": coder.space.to_image(found.raw), last: coder.space.to_image(back)}
        pictures.save(pictures.side_by_side(sheet), out / folders.SHEET)
        of_each = folders.psnr(back, found.raw).tolist()
        judged = {"lpips": perceptual.protocol} if perceptual else {}
        filling.finish(plan | {"rows": rows} | judged, [
            {"file": name, "source": source, "psnr": value if value < float("inf") else None}
            for name, source, value in zip(names, found.names, of_each, strict=True)
        ])  # fmt: skip
    table(title, [{key: f"{value:.4g}" for key, value in row.items()} for row in rows])
    say(f"done: {len(back)} in {out}, sheet {out / folders.SHEET}")
    return rows


def _there_and_back(
    coder: Model, raw: Tensor, asked: Sequence[str] | None, seed: int | None, iterations: int, t: int,
    options: dict[str, Any], part: slice,
) -> Tensor:  # fmt: skip
    labels = folders.among(asked, part)
    if seed is not None:
        x_t = coder.noised(raw[part], t=t, seed=seed, first=part.start)
        return coder.decode(x_t, t=t, labels=labels, **options)
    x_t = coder.encode(raw[part], t=t, iterations=iterations, labels=labels, **options)
    return coder.decode(x_t, t=t, labels=labels, clip=False, **options)


def _mean(values: Tensor) -> float:
    """Over pictures; exact ones count as an error of a thousandth of a grey level, so that the mean is a number."""
    return float(values.clamp(max=108).mean())


def _perceptual(raw: Tensor) -> Perceptual | None:
    """LPIPS, where it can be had for these images."""
    try:
        return Perceptual(*raw.shape[2:])
    except InputError as error:
        say(f"note: LPIPS is left out: {error}")
        return None


def _write(out: Path, rows: Sequence[dict[str, Any]], seed: int | None) -> None:
    """The table as CSV, and as a plot where matplotlib is installed."""
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_text(out / folders.PLOT[1], buffer.getvalue())
    series = []
    for t in dict.fromkeys(row["t"] for row in rows):
        of_t = [row for row in rows if row["t"] == t]
        series.append(plots.Series(f"t = {t}", [row["steps"] for row in of_t], [row["psnr"] for row in of_t]))
    try:
        figure = plots.lines(series, title="reconstruction", x_label="steps each way", y_label="PSNR (dB)", log_x=True)
    except InputError as error:
        say(f"note: {error}")
        return
    plots.save(figure, out / folders.PLOT[0])
