"""The report: one page with scores and protocol, sweep, samples, nearest neighbours and training curves."""

import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.evaluation.inputs import Examples, Input
from tdpm_cli.evaluation.scorer import Found, Score, Scorer
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime import plots
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.html import Page

SIDE = 64  # pixels that an image of a grid takes at least
CURVES = ("loss/denoise", "loss/prior", "loss/discriminator", "D/real", "D/fake")
SAMPLES = 64
STARTS = {"prior": "from the prior", "data": "from real x_T", "gaussian": "from N(0, I)"}


def neighbours(samples: Examples, reference: Examples, found: Found) -> Image.Image:
    """The samples nearest to a training example, in a row, and those training examples below them."""
    ours, theirs = (list(numbers) for numbers in zip(*found.neighbours, strict=True))
    rows = {"samples, the nearest first": samples.data[ours][0], "their nearest in the data": reference.data[theirs][0]}
    return pictures.stacked({title: grid(raw, len(ours)) for title, raw in rows.items()})


def grid(raw: Tensor, columns: int = 8) -> Image.Image:
    """Images uint8 [N, C, H, W] in rows, small ones enlarged without smoothing."""
    factor = max(1, SIDE // max(raw.shape[-2:]))
    large = raw.repeat_interleave(factor, -2).repeat_interleave(factor, -1)
    sheet = make_grid(large.expand(-1, 3, -1, -1), nrow=columns, padding=2, pad_value=255)
    return Image.fromarray(sheet.permute(1, 2, 0).contiguous().numpy())


def write_report(
    path: Path, samples: Input, found: Found, merged: Sequence[Score], classes: Mapping[str, Score], scorer: Scorer,
    result: Mapping[str, Any],
) -> None:  # fmt: skip
    """Write the page of one `tdpm eval`. Raises InputError where the report's packages are not installed."""
    page = Page(f"tdpm eval {samples.text}")
    page.table("Scores", [{"metric": score.name, "score": score.text, "n": found.n} for score in merged],
               note=f"against {scorer.reference.text}, {scorer.summary.count:,} examples")  # fmt: skip
    if classes:
        page.table("By class", [{"class": name, "distance": score.text} for name, score in classes.items()])
    if "diagnosis" in result:
        page.table("Diagnosis", result["diagnosis"]["rows"], note=result["diagnosis"]["advice"])
    if isinstance(samples, Examples) and len(samples.shape) == 3:
        shown = samples.data[list(range(min(SAMPLES, len(samples))))][0]
        page.image("Samples", _png(grid(shown)), f"the first {len(shown)}, not chosen")
        if found.neighbours and isinstance(scorer.reference, Examples):
            picture = neighbours(samples, scorer.reference, found)
            page.image("Nearest neighbours", _png(picture), "what came nearest to the training data")
    run = _run_of(samples)
    if run and (run / "sweep" / "sweep.json").is_file():
        add_sweep(page, read_sweep(run / "sweep" / "sweep.json"))
    if run and (run / "log.jsonl").is_file():
        _curves(page, run / "log.jsonl")
    page.details("Protocol", result["protocol"])
    page.write(path)


def read_sweep(path: Path) -> list[dict[str, Any]]:
    """The rows of an earlier sweep. Raises InputError for a damaged file."""
    try:
        rows: list[dict[str, Any]] = json.loads(path.read_text())["rows"]
        return [{"prior_guidance_scale": 1.0, **row} for row in rows if row["key"]]  # which older files leave out
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(f"{path}: damaged ({error!r}); move it away, or name another folder with --out") from None


def add_sweep(page: Page, rows: Sequence[Mapping[str, Any]]) -> None:
    """The plot and the table of sweeps, one of each for rows of one protocol."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(row["protocol_key"], []).append(row)
    for k, group in enumerate(groups.values()):
        other = f" (protocol {k + 1} of {len(groups)}: not to be compared with the others)" if len(groups) > 1 else ""
        page.figure(f"Quality against network calls{other}", plots.svg(sweep_plot(group)))
        page.table(f"Sweep{other}", sweep_table(group))


def sweep_plot(rows: Sequence[Mapping[str, Any]]) -> Any:
    """Distance against network calls, one line for each combination of what is not the steps."""
    lines: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        lines.setdefault(_line_of(row, rows), []).append(row)
    series = []
    for name, points in lines.items():
        points = sorted(points, key=lambda row: row["nfe"])
        errors = [row["errors"].get(row["metric"]) for row in points]
        series.append(plots.Series(
            name, [row["nfe"] for row in points], [row["scores"][row["metric"]] for row in points],
            None if None in errors else errors,
        ))  # fmt: skip
    return plots.lines(
        series, title="Quality against network calls", x_label="network calls (NFE)", y_label=rows[0]["metric"],
        log_x=True, log_y=True,
    )  # fmt: skip


def sweep_table(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Rows of text, without the columns that say the same everywhere."""
    settings = ("model", "sampler", "spacing", "start", "guidance_scale", "prior_guidance_scale")
    columns = [key for key in settings if len({row[key] for row in rows}) > 1]
    return [
        {
            **{key.replace("_", " "): str(row[key]) for key in columns},
            "steps": str(row["steps"]),
            "NFE": str(row["nfe"]),
            **{name: Score(name, value, row["errors"].get(name)).text for name, value in row["scores"].items()},
            "best": "★" if is_best(row, rows) else "",
        }
        for row in rows
    ]


def _line_of(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> str:
    """What tells a row's line from the others."""
    said = {key: str(row[key]) for key in ("model", "sampler")}
    said |= {
        "spacing": f"spacing {row['spacing']:g}",
        "guidance_scale": f"guidance scale {row['guidance_scale']:g}",
        "prior_guidance_scale": f"prior guidance scale {row['prior_guidance_scale']:g}",
        "start": STARTS[row["start"]],
    }
    varying = [key for key in said if len({other[key] for other in rows}) > 1]
    return ", ".join(said[key] for key in varying) or said["model"]


def is_best(row: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Whether no other row that a model made by itself has a lower distance at as many network calls."""
    rivals = [other for other in rows if other["start"] == "prior" and other["nfe"] == row["nfe"]]
    best = min((other["scores"][other["metric"]] for other in rivals), default=0.0)
    return row["start"] == "prior" and row["scores"][row["metric"]] == best


def _curves(page: Page, log: Path) -> None:
    # The last line of a run that is being trained may not be whole yet.
    lines = [json.loads(line) for line in log.read_text().splitlines(keepends=True) if line.endswith("\n")]
    series = [
        plots.Series(
            key, [line["seen"] / 1000 for line in lines if key in line], [line[key] for line in lines if key in line]
        )
        for key in CURVES
        if any(key in line for line in lines)
    ]
    if series:
        page.figure("Training", plots.svg(plots.lines(series, title="Training", x_label="kimg", y_label="mean")))


def _run_of(samples: Input) -> Path | None:
    """The run that drew the samples, if it is still there."""
    manifest = samples.manifest if isinstance(samples, Examples) else None
    source = Path(manifest["model"]) if manifest else None
    return run_of(source) if source else None


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
