"""The report of `tdpm eval`: tables on the terminal, and one page of scores, images, curves and protocol."""

import io
import os
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from pydantic import ConfigDict

from tdpm_cli.evaluation.examples import Examples, Input
from tdpm_cli.evaluation.results import Merged, Scores
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.evaluation.sweep_report import SWEEP_JSON, add_sweep, read_sweep
from tdpm_cli.runtime import grids, plots
from tdpm_cli.runtime.console import print_line, table
from tdpm_cli.runtime.destinations import is_own
from tdpm_cli.runtime.files import Json
from tdpm_cli.runtime.html import Page
from tdpm_cli.runtime.records import Natural, Record, read_lines

CURVES = ("loss/denoise", "loss/prior", "loss/discriminator", "D/real", "D/fake")
SAMPLES_SHOWN = 64
PAIRS_PNG = "nearest.png"


class LogLine(Record):
    """One line of `log.jsonl`: means of values by name, after `seen` images."""

    model_config = ConfigDict(extra="allow")
    __pydantic_extra__: dict[str, float]
    seen: Natural


@dataclass(frozen=True)
class EvaluationReport:
    """Everything that is reported of one evaluation; `result` is what --json writes."""

    samples: Input
    scores: Scores
    merged: Merged
    scorer: Scorer
    result: Json
    run: Path | None  # of the model

    def print(self) -> None:
        """Print the scores, those of each class, and the files left out."""
        seeds = f", mean ± sd of {self.merged.seeds} seeds" if self.merged.seeds > 1 else ""
        summary = self.scorer.summary
        manifest = self.samples.manifest if isinstance(self.samples, Examples) else None
        nfe = manifest.get("nfe_text", "–") if manifest else "–"
        columns = {"NFE": nfe, "reference": f"{self.scorer.reference.text} ({summary.count:,})"}
        table(f"tdpm eval {self.samples.text}{seeds}", [row | columns for row in self._score_rows()])
        if self.merged.classes:
            table(f"by class{seeds}", self._class_rows())
        for side, broken in (("samples", self.scores.broken), ("reference", summary.broken)):
            if broken:
                print_line(f"left out of the {side}, because they cannot be decoded: {'; '.join(broken)}")

    def write(self, path: Path) -> None:
        """Write the page. Raises InputError if the packages of the extra `report` are not installed."""
        page = Page(f"tdpm eval {self.samples.text}")
        reference = self.scorer.reference
        note = f"reference: {reference.text}, {self.scorer.summary.count:,} examples"
        page.table("Scores", self._score_rows(), note=note)
        if self.merged.classes:
            page.table("By class", self._class_rows())
        if "diagnosis" in self.result:
            page.table("Diagnosis", self.result["diagnosis"]["rows"], note=self.result["diagnosis"]["advice"])
        if isinstance(self.samples, Examples) and self.samples.is_image:
            shown = self.samples.data[list(range(min(SAMPLES_SHOWN, len(self.samples))))][0]
            page.image("Samples", _png(grids.image_grid(shown)), f"the first {len(shown)}, not selected")
        if picture := self._pairs_image():
            page.image("Nearest neighbours", _png(picture), "the samples nearest to the training data")
        self._add_run(page)
        page.details("Protocol", self.result["protocol"])
        page.write(path)

    def write_pairs(self, beside: bool) -> Path | None:
        """Write an image of the samples nearest to training images; return its path, or None if there is none.

        It is written beside stored samples, or into the run of the model. A file that tdpm did not write stays.
        """
        if not (picture := self._pairs_image()):
            return None
        place = Path(self.samples.text).resolve()
        in_run = not beside and place.is_dir()
        path = place / PAIRS_PNG if in_run else place.with_name(f"{place.stem}-{PAIRS_PNG}")
        if os.path.lexists(path) and not is_own(path):
            print_line(f"note: {path}: found a file that tdpm did not write; the nearest neighbours are not drawn")
            return None
        return grids.save(picture, path)

    def _score_rows(self) -> list[dict[str, str]]:
        return [{"metric": score.name, "score": score.text, "n": f"{self.scores.n:,}"} for score in self.merged.overall]

    def _class_rows(self) -> list[dict[str, str]]:
        return [{"class": name, "distance": score.text} for name, score in self.merged.classes.items()]

    def _pairs_image(self) -> Image.Image | None:
        """Draw the samples of `Score.pairs` in a row, and the reference examples below them; None without images."""
        samples, reference, pairs = self.samples, self.scorer.reference, self.scores.pairs
        if not pairs or not isinstance(samples, Examples) or not isinstance(reference, Examples):
            return None
        if not samples.is_image:
            return None
        ours, theirs = (list(numbers) for numbers in zip(*pairs, strict=True))
        rows = {"samples, the nearest first": samples.data[ours][0],
                "their nearest in the data": reference.data[theirs][0]}  # fmt: skip
        return grids.stacked({title: grids.image_grid(raw, len(ours)) for title, raw in rows.items()})

    def _add_run(self, page: Page) -> None:
        """Add the sweep and the training curves of the run that drew the samples, if they exist."""
        run = self.run
        if run and (run / "sweep" / SWEEP_JSON).is_file():
            add_sweep(page, read_sweep(run / "sweep" / SWEEP_JSON))
        if run and (run / "log.jsonl").is_file():
            _add_curves(page, run / "log.jsonl")


def _add_curves(page: Page, log: Path) -> None:
    lines = read_lines(log, LogLine, "move the file elsewhere")
    logged = {key: [line for line in lines if key in line] for key in CURVES}
    series = [
        plots.Series(key, [line["seen"] / 1000 for line in having], [line[key] for line in having])
        for key, having in logged.items()
        if having
    ]
    if series:
        page.figure("Training", plots.svg(plots.lines(series, plots.Frame("Training", "kimg", "mean"))))


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
