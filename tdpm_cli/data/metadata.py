"""`metadata.jsonl` and `metadata.csv` of Hugging Face's imagefolder: a row an image, with caption and label.

A file describes the images below its own folder by `file_name`.
"""

import csv
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import PurePosixPath

from tdpm_cli.data.containers import Container
from tdpm_cli.data.dataset_json import DatasetJson
from tdpm_cli.runtime.errors import InputError

NAMES = ("metadata.jsonl", "metadata.csv")
FILE_COLUMN = "file_name"
CAPTION_COLUMNS = ("text", "caption", "captions")
LABEL_COLUMNS = ("label", "class")


def metadata_files(names: Sequence[str]) -> list[str]:
    """Return the names of the metadata files among the names of files."""
    return [name for name in names if PurePosixPath(name).name in NAMES]


def read_metadata(container: Container, files: Sequence[str]) -> DatasetJson:
    """Return the labels and captions in metadata files. Raises InputError if one of them is damaged."""
    labels: dict[str, object] = {}
    captions: dict[str, object] = {}
    for file in files:
        folder = PurePosixPath(file).parent
        for row in _rows(container, file):
            image = (folder / str(row[FILE_COLUMN])).as_posix()
            for values, columns in ((labels, LABEL_COLUMNS), (captions, CAPTION_COLUMNS)):
                if (column := next((column for column in columns if row.get(column) is not None), None)) is not None:
                    values[image] = row[column]
    numbered, classes = _numbered(labels)
    return DatasetJson(numbered, captions, classes, file=" and ".join(files))


def _rows(container: Container, file: str) -> Iterator[Mapping[str, object]]:
    number = 1
    try:
        text = container.read(file).decode("utf-8-sig")
        read = csv.DictReader(io.StringIO(text, newline="")) if file.endswith(".csv") else _json_lines(text)
        for row in read:
            number += 1
            if not isinstance(row, Mapping) or not isinstance(row.get(FILE_COLUMN), str):
                raise ValueError(f"row {number} has no text {FILE_COLUMN!r}")
            yield row
    except (ValueError, csv.Error, RecursionError) as error:
        raise InputError(f"{container.path}: {file} is damaged, or not metadata of images ({error}); repair or remove "
                         "it") from None  # fmt: skip


def _json_lines(text: str) -> Iterator[object]:
    yield from (json.loads(line) for line in text.split("\n") if line.strip())


def _numbered(labels: Mapping[str, object]) -> tuple[Mapping[str, object], list[str] | None]:
    """Return labels as numbers, and the names of the classes if labels are names: in a CSV numbers are text."""
    if not labels or not all(isinstance(label, str) for label in labels.values()):
        return labels, None
    texts = {image: str(label).strip() for image, label in labels.items()}
    if all(label.isdecimal() and len(label) < 10 for label in texts.values()):
        return {image: int(label) for image, label in texts.items()}, None
    classes = sorted(set(texts.values()))
    number = {name: k for k, name in enumerate(classes)}
    return {image: number[label] for image, label in texts.items()}, classes
