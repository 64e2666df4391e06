"""Datasets of Hugging Face's `datasets`: saved to a folder, parquet or Arrow files, or from the hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.captions import Uncaptioned, captioned_positions
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import InputError, first_line

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["huggingface"]

SAVED = ("dataset_info.json", "dataset_dict.json")  # in a folder that `save_to_disk` wrote


def huggingface(
    path: Path | None, raw_shape: Sequence[int] | None, *, hub: str | None = None, split: str = "train",
    image: str | None = None, label: str | None = None, captions: str | None = None,
    crop: Crop = "centre", upscale: bool = False, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Images of the column `image` (default: the first of images), labels of `label` (default: the first of classes).

    Captions are those of the column `captions`. `path` is a folder that `save_to_disk` wrote, or one of parquet files;
    without it, `hub` names a dataset of the hub, which is downloaded to its cache. No code of a dataset is executed.
    Raises InputError for data that cannot be read.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "the dataset 'huggingface' needs a package; install it with: pip install 'tdpm-cli[datasets]'"
        ) from None
    if (path is None) == (hub is None):
        raise InputError("the dataset 'huggingface' needs either --data PATH or data.hub=OWNER/NAME")
    datasets.disable_progress_bars()
    try:
        table = _open(path, hub, split)
    except Exception as error:  # of the network, of Arrow, or for a split that does not exist
        raise InputError(f"--data {path or hub}: the dataset cannot be read ({first_line(error)})") from None
    rows = Rows(table, path or Path(str(hub)), _Columns(table, path or hub, image, label, captions), uncaptioned)
    return ImageDataset(rows, raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Return whether `path` is a saved dataset, or contains parquet files."""
    return path.suffix == ".parquet" or (
        path.is_dir() and (any((path / name).is_file() for name in SAVED) or any(path.glob("*.parquet")))
    )


def _open(path: Path | None, hub: str | None, split: str) -> "Dataset":
    import datasets

    if path is None:
        return datasets.load_dataset(hub, split=split)
    if any((path / name).is_file() for name in SAVED):
        saved = datasets.load_from_disk(str(path))
        return saved[split] if isinstance(saved, dict) else saved
    files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [str(path)]
    return datasets.Dataset.from_parquet(files)


class _Columns:
    """The columns of images, labels and captions. Raises InputError for a column that does not exist."""

    def __init__(
        self, table: "Dataset", source: object, image: str | None, label: str | None, captions: str | None
    ) -> None:
        import datasets

        first = lambda kind: next((key for key, value in table.features.items() if isinstance(value, kind)), None)
        listed = ", ".join(table.features)
        self.image, self.label, self.captions = image or first(datasets.Image), label, captions
        for column in filter(None, (self.image, label, captions)):
            if column not in table.features:
                raise InputError(f"{source}: no column {column!r}; it has: {listed}")
        if self.image is None:
            raise InputError(f"{source}: no column of images; it has: {listed}. Name one with data.image")
        self.label = label or first(datasets.ClassLabel)
        is_class = isinstance(table.features.get(self.label), datasets.ClassLabel)
        self.class_names: list[str] = list(table.features[self.label].names or ()) if is_class else []


class Rows:
    """The images in the rows of a table."""

    quarantined = 0
    other_files: Sequence[str] = ()

    def __init__(self, table: "Dataset", path: Path, columns: _Columns, uncaptioned: Uncaptioned = "fail") -> None:
        import datasets

        self.path, self._columns = path, columns
        self.names, self.without_caption = [str(k) for k in range(len(table))], list[str]()
        if columns.captions:
            cells = zip(self.names, table[columns.captions], strict=True)
            self.without_caption = [name for name, cell in cells if not _texts_in(cell)]
            kept = captioned_positions(f"--data {path}", self.names, self.without_caption, uncaptioned)
            table, self.names = table.select(kept), [self.names[k] for k in kept]
        if not self.names:
            raise InputError(f"{path}: the dataset has no rows, or no captions in the column {columns.captions!r}")
        self._labels = torch.tensor(table[columns.label][:]) if columns.label else None
        if self._labels is not None and int(self._labels.min()) < 0:
            raise InputError(f"{path}: {columns.label} has labels below 0, which mark examples without a class; choose "
                             "another split")  # fmt: skip
        highest = -1 if self._labels is None else int(self._labels.max())
        self.class_names = columns.class_names or numbered_names(highest, str(path))
        self._table = table.cast_column(columns.image, datasets.Image(decode=False))

    def content(self, k: int) -> bytes:
        """Return the bytes of image k."""
        cell = self._table[k][self._columns.image]
        if cell and cell.get("bytes"):
            return bytes(cell["bytes"])
        try:
            return Path(cell["path"]).read_bytes()
        except (TypeError, OSError) as error:
            raise InputError(f"{self.path}: the image of row {k} is missing ({error})") from None

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return labels and captions, where there are any."""
        raw_condition: RawCondition = {}
        if self._labels is not None:
            raw_condition["label"] = self._labels[torch.as_tensor(indices)]
        if captions := self._columns.captions:
            cells = self._table.select_columns(captions)[list(indices)][captions]
            raw_condition["captions"] = [_texts_in(cell) or ("",) for cell in cells]
        return raw_condition

    def fingerprint(self) -> str:
        """Return a hash of the number of rows, the size that the table states, and the classes."""
        text = f"{len(self.names)} {self._table.info.dataset_size} {self.class_names}"
        return hashlib.sha256(text.encode()).hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of the contents of all images."""
        digest = hashlib.sha256()
        for k in range(len(self.names)):
            digest.update(hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()


def _texts_in(cell: str | Sequence[str | None] | None) -> tuple[str, ...]:
    """Return the captions in a cell: a text, a list of texts, or nothing."""
    texts = [cell] if isinstance(cell, str) else cell or []
    return tuple(text.strip() for text in texts if text and text.strip())
