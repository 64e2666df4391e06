"""tdpm reconstruct: encode images to x_t and decode them; the error against t and steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from tdpm_cli.evaluation.lpips import Perceptual
from tdpm_cli.evaluation.options import ReconstructOptions
from tdpm_cli.runtime import grids, plots
from tdpm_cli.runtime.console import print_line, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, write_text
from tdpm_cli.runtime.text import csv_text
from tdpm_cli.sampling.image_folder import PLOT, SHEET, ImageFolder, open_image_folder, precision_of, read_manifest
from tdpm_cli.sampling.input_images import InputImages, choose_labels, labels_of, psnr, read_images
from tdpm_cli.sampling.model import Model, load_for_command
from tdpm_cli.sampling.settings import describe

COMMAND = "reconstruct"
EXACT_PSNR = 108.0  # dB, an error of a thousandth of a grey level, which stands for no error in a mean
Row = Json


@dataclass(frozen=True)
class Roundtrip:
    """Encodes images `raw` [n, C, H, W] of a model and decodes them."""

    model: Model
    raw: Tensor
    labels: Sequence[str] | None
    options: ReconstructOptions
    sampling: Json

    def __call__(self, t: int, steps: int, part: slice) -> Tensor:
        """Return some of the images, encoded to time t and decoded in so many steps each way."""
        model, raw, labels = self.model, self.raw[part], labels_of(self.labels, part)
        settings = {**self.sampling, "steps": steps}
        if self.options.seed is not None:
            x_t = model.noised(raw, t=t, seed=self.options.seed, first=part.start)
            return model.decode(x_t, t=t, labels=labels, **settings)
        x_t = model.encode(raw, t=t, iterations=self.options.iterations, labels=labels, **settings)
        return model.decode(x_t, t=t, labels=labels, clip=False, **settings)


def reconstruct(source: str, out: Path, options: ReconstructOptions) -> list[Row]:
    """Encode and decode the images of `source` at every time and number of steps; return a row of errors for each.

    Writes the reconstructions of the last row, a table (CSV), a plot, a sheet of images and a manifest to `out`. The
    PSNR is a mean over images; LPIPS is computed if its weights are present. Raises InputError for input that does not
    fit, and for steps that exceed every t.
    """
    model = load_for_command(options.model, options.external)
    images = read_images(source, model, options.n)
    labels = choose_labels(model, options, images.labels)
    precision = precision_of(out, options.overwrite)
    sampling = {**options.sampling, "sampler": "ddim", "precision": precision}
    pairs = _pairs(model, options)
    settings = model.settings(steps=min(options.steps), **sampling)
    manifest = describe(model.loaded, settings, options.seed or 0) | {
        "command": COMMAND, "by": options.method, "pairs": [list(pair) for pair in pairs],
        "condition": options.condition, "input_sha256": images.sha256(),
    }  # fmt: skip
    roundtrip = Roundtrip(model, images.raw, labels, options, sampling)
    title = f"{COMMAND} {source}, by {options.method}"
    with open_image_folder(out, manifest, options.overwrite, [source]) as folder:
        if folder is None:
            rows = list(read_manifest(out, COMMAND, "rows")["rows"])
        else:
            rows = _fill(folder, images, roundtrip, pairs, manifest)
    table(title, [{key: f"{value:.4g}" for key, value in row.items()} for row in rows])
    if folder is not None:
        print_line(f"done: {len(images.raw)} in {out}, sheet {out / SHEET}")
    return rows


def _pairs(model: Model, options: ReconstructOptions) -> list[tuple[int, int]]:
    """Return every (t, steps). Raises InputError for a t that the schedule lacks, and for steps that exceed every t."""
    for t in options.at:
        model.settings(steps=t)  # raises for a t beyond T
    times = options.at or (model.schedule.T,)
    pairs = [(t, steps) for t in times for steps in options.steps if steps <= t]
    if not pairs:
        listed = ",".join(map(str, options.steps))
        raise InputError(f"--steps {listed}: more steps than the largest t, {max(times)}; use fewer")
    return pairs


def _fill(
    folder: ImageFolder, images: InputImages, roundtrip: Roundtrip, pairs: Sequence[tuple[int, int]],
    manifest: Json,
) -> list[Row]:  # fmt: skip
    """Compute every row, and write everything to the folder, the manifest last."""
    raw, names, out = images.raw, [f"{k:06d}.png" for k in range(len(images.raw))], folder.path
    perceptual = _perceptual(raw)
    batch = roundtrip.model.settings(steps=pairs[0][1], **roundtrip.sampling).batch
    rows, decoded = list[Row](), raw
    for t, steps in pairs:
        decode = lambda part, t=t, steps=steps: roundtrip(t, steps, part)
        decoded = folder.compute(f"t = {t}, {steps} steps", len(raw), batch, decode)
        row = {"t": t, "steps": steps, "psnr": float(psnr(decoded, raw).clamp(max=EXACT_PSNR).mean())}
        rows.append(row | ({"lpips": float(perceptual(decoded, raw).mean())} if perceptual else {}))
    _write_errors(out, rows)
    folder.write_images(decoded, names)
    t, steps = pairs[-1]
    to_image = roundtrip.model.space.to_image
    panels = {"images": to_image(raw), f"decoded from t = {t} in {steps} steps": to_image(decoded)}
    grids.save(grids.side_by_side(panels), out / SHEET)
    errors = [value if value < float("inf") else None for value in psnr(decoded, raw).tolist()]
    folder.finish(
        {**manifest, "rows": rows, **({"lpips": perceptual.protocol} if perceptual else {})},
        [
            {"file": name, "source": source, "psnr": value}
            for name, source, value in zip(names, images.names, errors, strict=True)
        ],
    )
    return rows


def _perceptual(raw: Tensor) -> Perceptual | None:
    """Return LPIPS, or None, with a note, if it cannot be computed for these images."""
    try:
        return Perceptual(*raw.shape[2:])
    except InputError as error:
        print_line(f"note: LPIPS is left out: {error}")
        return None


def _write_errors(out: Path, rows: Sequence[Row]) -> None:
    """Write the rows as CSV, and as a plot if matplotlib is installed."""
    plot_file, csv_file = PLOT
    write_text(out / csv_file, csv_text([list(rows[0]), *(row.values() for row in rows)]))
    by_time: dict[int, list[Row]] = {}
    for row in rows:
        by_time.setdefault(row["t"], []).append(row)
    series = [
        plots.Series(f"t = {t}", [row["steps"] for row in own], [row["psnr"] for row in own])
        for t, own in by_time.items()
    ]
    try:
        figure = plots.lines(series, plots.Frame("reconstruction", "steps each way", "PSNR (dB)", log_x=True))
    except InputError as error:
        print_line(f"note: {error}")
        return
    plots.save(figure, out / plot_file)
