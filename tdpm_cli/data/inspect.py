"""tdpm data inspect: report what a dataset contains, and draw some of its images."""

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch
from PIL import Image

from tdpm_cli.data import decode
from tdpm_cli.data.dataset import Dataset, FromImageFiles, pieces_of
from tdpm_cli.data.survey import open_images, summary_of, survey
from tdpm_cli.runtime.console import next_command, print_line, summary_table, table
from tdpm_cli.runtime.destinations import check_file
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.grids import contact_sheet, save

SHEET_IMAGES = 64  # on the contact sheet
LISTED_CLASSES = 20  # the largest and the smallest, where there are more than twice as many
LABELS_TOGETHER = 10_000  # examples whose labels are read at a time


def inspect(
    path: Path,
    sheet: Path | None = None,
    json_file: Path | None = None,
    workers: int | None = None,
    describe: Callable[[Path], dict[str, str]] = lambda path: {},
    overwrite: bool = False,
) -> None:
    """Print what a dataset contains, and write a contact sheet to `sheet`. Raises InputError for unreadable data.

    `describe` returns more lines for the images at a path. `overwrite` allows to replace files of other programs.
    """
    check_file("--sheet", sheet, [path], overwrite=overwrite)
    check_file("--json", json_file, [path], overwrite=overwrite)
    dataset, name = open_images(path)
    lines = {"read as": name}
    if isinstance(dataset, FromImageFiles):
        lines |= summary_of(survey(dataset, path, decode=False, workers=workers))
    else:
        channels, height, width = dataset.shape
        mode = "grey" if channels == 1 else "RGB"
        lines |= {"images": f"{len(dataset):,}", "sizes": f"1: {width}×{height}", "modes": f"{mode}, 8 bits"}
    counts = _class_counts(dataset)
    if counts:
        lines["classes"] = f"{len(counts):,}, of {min(counts.values()):,} to {max(counts.values()):,} images"
    captions = dataset.raw_condition([0]).get("captions")
    lines |= describe(path)
    lines["captions"] = f"such as {captions[0][0]!r}" if captions else "none"
    summary_table(f"tdpm data inspect {path}", lines)
    if counts:
        table("classes", [{"class": label, "images": f"{count:,}"} for label, count in _extremes(counts)])
    for note in dataset.notes:
        print_line(f"note: {note}")
    if json_file:
        write_text(
            json_file,
            json.dumps(
                {"written_by": "tdpm data inspect", "path": str(path), **lines, "class_counts": counts}, indent=1
            ),
        )
    if sheet:
        print_line(f"contact sheet: {save(_contact_sheet(dataset), sheet)}")
    print_line(next_command("tdpm data verify", path))


def _class_counts(dataset: Dataset) -> dict[str, int]:
    """Return the number of images of each class; {} without classes."""
    if "label" not in dataset.raw_condition([0]):
        return {}
    counts: Counter[int] = Counter()
    for piece in pieces_of(len(dataset), LABELS_TOGETHER):
        counts.update(dataset.raw_condition(piece)["label"].tolist())
    return {name: counts.get(k, 0) for k, name in enumerate(dataset.class_names)}


def _extremes(counts: dict[str, int]) -> list[tuple[str, int]]:
    """Return all classes by size if they are few, else the largest and the smallest."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    few = len(ordered) <= 2 * LISTED_CLASSES
    return ordered if few else [*ordered[:LISTED_CLASSES], *ordered[-LISTED_CLASSES:]]


def _contact_sheet(dataset: Dataset) -> Image.Image:
    """Draw images chosen at random; those that cannot be decoded are red."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randperm(len(dataset), generator=generator)[:SHEET_IMAGES].tolist()
    return contact_sheet([_decoded(dataset, k) for k in sorted(chosen)])


def _decoded(dataset: Dataset, k: int) -> Image.Image | None:
    try:
        with decode.decoding():
            if isinstance(dataset, FromImageFiles):
                return decode.flatten(decode.open_image(dataset.files.content(k)), 3)
            return decode.flatten(decode.from_tensor(dataset[[k]][0][0]), 3)
    except (ValueError, InputError):
        return None
