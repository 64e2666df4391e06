"""Rows of a sweep as table, CSV, plot and page."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tdpm_cli.config.constants import Start
from tdpm_cli.config.legacy import upgrade_record
from tdpm_cli.evaluation.metric import Score
from tdpm_cli.runtime import plots, text
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json
from tdpm_cli.runtime.html import Page
from tdpm_cli.runtime.records import Natural, Record, read_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SWEEP_JSON, SWEEP_CSV, SWEEP_PNG = "sweep.json", "sweep.csv", "sweep.png"
START_TEXTS = {"prior": "from the prior", "data": "from real x_T", "gaussian": "from N(0, I)"}
SETTINGS = ("model", "sampler", "spacing", "start", "guidance_scale", "prior_guidance_scale")
Row = Json


class Protocol(Record):
    """The keys of a row's protocol that reports show."""

    n: Natural
    seeds: list[int]


class SweepRow(Record):
    """One combination of settings, and its scores."""

    key: str
    model: str
    sampler: str
    spacing: float
    start: Start
    guidance_scale: float
    prior_guidance_scale: float
    steps: Natural
    nfe: Natural
    metric: str
    scores: dict[str, float]
    errors: dict[str, float]
    protocol_key: str
    protocol: Protocol


class SweepFile(Record):
    """`sweep.json`."""

    rows: list[SweepRow]


def read_sweep(path: Path) -> list[Json]:
    """Read the rows of an earlier sweep. Raises InputError for a damaged file."""
    advice = "move the file elsewhere, or name another folder with --out"
    rows: list[Json] = read_record(path, SweepFile, advice, _upgrade)["rows"]
    for number, row in enumerate(rows):
        if row["metric"] not in row["scores"]:
            raise InputError(
                f"{path}: damaged, rows[{number}].metric is {row['metric']!r}, which its scores lack; {advice}"
            )
    return rows


def _upgrade(content: Json) -> Json:
    """Rename the keys of older rows; version 0.0 has no guidance scale of the prior."""
    rows = [{"prior_guidance_scale": 1.0, **upgrade_record(row)} for row in content["rows"]]
    return {**content, "rows": rows}


def is_best(row: Row, rows: Sequence[Row]) -> bool:
    """Return whether no other row has a lower distance at the same network calls, among those from the prior."""
    rivals = [other for other in rows if other["start"] == "prior" and other["nfe"] == row["nfe"]]
    best = min(map(distance_of, rivals), default=0.0)
    return row["start"] == "prior" and distance_of(row) == best


def distance_of(row: Row) -> float:
    """Return the distance of a row, which is its first metric."""
    return float(row["scores"][row["metric"]])


def table_rows(rows: Sequence[Row]) -> list[dict[str, str]]:
    """Rows of text, without the settings that are the same in all of them."""
    columns = [key for key in SETTINGS if len({row[key] for row in rows}) > 1]
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


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV, with the error of every score."""
    metrics = list(rows[0]["scores"])
    error = "sd" if len(rows[0]["protocol"]["seeds"]) > 1 else "standard error"
    settings = (*SETTINGS, "steps", "nfe")
    heads = itertools.chain.from_iterable((name, f"{error} of {name}") for name in metrics)
    lines: list[list[object]] = [[*settings, "n", *heads, "best"]]
    for row in rows:
        values = itertools.chain.from_iterable((row["scores"][name], row["errors"].get(name, "")) for name in metrics)
        lines.append([*(row[key] for key in settings), row["protocol"]["n"], *values, int(is_best(row, rows))])
    return text.csv_text(lines)


def plot(rows: Sequence[Row]) -> "Figure":
    """Plot the distance against network calls, one line for each combination of settings other than the steps."""
    lines: dict[str, list[Row]] = {}
    for row in rows:
        lines.setdefault(_line_name(row, rows), []).append(row)
    series = []
    for name, points in lines.items():
        points = sorted(points, key=lambda row: row["nfe"])
        errors = [row["errors"].get(row["metric"]) for row in points]
        nfe, distances = [row["nfe"] for row in points], [distance_of(row) for row in points]
        series.append(plots.Series(name, nfe, distances, None if None in errors else errors))
    title, metric = "Quality against network calls", rows[0]["metric"]
    return plots.lines(series, plots.Frame(title, "network calls (NFE)", metric, log_x=True, log_y=True))


def add_sweep(page: Page, rows: Sequence[Row]) -> None:
    """Add plot and table of sweeps to a page: one of each for the rows of one protocol."""
    groups: dict[str, list[Row]] = {}
    for row in rows:
        groups.setdefault(row["protocol_key"], []).append(row)
    for k, group in enumerate(groups.values()):
        other = f" (protocol {k + 1} of {len(groups)}; do not compare with the others)" if len(groups) > 1 else ""
        page.figure(f"Quality against network calls{other}", plots.svg(plot(group)))
        page.table(f"Sweep{other}", table_rows(group))


def _line_name(row: Row, rows: Sequence[Row]) -> str:
    """Name a row's line by the settings that differ between lines."""
    texts = {
        "model": str(row["model"]),
        "sampler": str(row["sampler"]),
        "spacing": f"spacing {row['spacing']:g}",
        "guidance_scale": f"guidance scale {row['guidance_scale']:g}",
        "prior_guidance_scale": f"prior guidance scale {row['prior_guidance_scale']:g}",
        "start": START_TEXTS[row["start"]],
    }
    varying = [key for key in texts if len({other[key] for other in rows}) > 1]
    return ", ".join(texts[key] for key in varying) or texts["model"]
