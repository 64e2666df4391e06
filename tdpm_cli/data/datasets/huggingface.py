"""Datasets of Hugging Face's `datasets`: saved to a folder, parquet or Arrow files, or from the hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalName, RawCondition
from tdpm_cli.data.captions import Uncaptioned, captioned_positions
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import BadFile, InputError, first_line
from tdpm_cli.runtime.files import read_json, read_regular

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["huggingface"]

SPLITS, STATE = "dataset_dict.json", "state.json"  # in a folder that `save_to_disk` wrote, and in that of a split
ADVICE = "save the dataset again"
SAVED = ("dataset_info.json", SPLITS)


def huggingface(
    path: Path | None, raw_shape: Sequence[int] | None, *, hub: ExternalName | None = None, split: str = "train",
    image: str | None = None, label: str | None = None, captions: str | None = None,
    crop: Crop = "centre", upscale: bool = False, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Images of the column `image` (default: the first of images), labels of `label` (default: the first of classes).

    Captions are those of the column `captions`. `path` is a folder that `save_to_disk` wrote, or one of parquet files;
    without it, `hub` names a dataset of the hub, which is downloaded to its cache. No code of a dataset is executed,
    and no file outside its folder is read. Raises InputError for data that cannot be read.
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
    except InputError:
        raise
    except Exception as error:  # of the network, of Arrow, or for a split that does not exist
        raise InputError(f"--data {path or hub}: the dataset cannot be read ({first_line(error)})") from None
    columns = _Columns(table, path or hub, image, label, captions)
    rows = Rows(table, path or Path(str(hub)), columns, _folders(path), uncaptioned)
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
        _check_saved(path)
        saved = datasets.load_from_disk(str(path))
        return saved[split] if isinstance(saved, dict) else saved
    files = sorted(path.rglob("*.parquet")) if path.is_dir() else [path]
    if special := [file for file in files if not file.is_file()]:  # reading a FIFO would wait for ever
        raise InputError(f"--data {special[0]}: no such file, or not a regular one")
    return datasets.Dataset.from_parquet([str(file) for file in files])


def _check_saved(folder: Path) -> None:
    """Raise InputError if a saved dataset names files that are not regular files of its own folders."""
    folders = [folder]
    if (folder / SPLITS).is_file():
        splits = read_json(folder / SPLITS, ADVICE).get("splits")
        folders = [folder / name for name in _plain_names(folder / SPLITS, splits)]
    for split in folders:
        listed = read_json(split / STATE, ADVICE).get("_data_files")
        files = [item.get("filename") if isinstance(item, dict) else item for item in listed or ()]
        for name in _plain_names(split / STATE, files):
            if not (split / name).is_file():
                raise BadFile(split, name, "no such regular file", ADVICE)


def _plain_names(file: Path, names: object) -> list[str]:
    """Return names of a list. Raises InputError for anything else, and for a name that leads out of the folder."""
    if not isinstance(names, list):
        raise InputError(f"{file}: damaged, it must contain a list of names; {ADVICE}")
    for name in names:
        if not isinstance(name, str) or len(PurePosixPath(name).parts) != 1 or name == "..":
            raise InputError(f"{file}: names {name!r}, which is not in its folder; do not trust this dataset")
    return names


def _folders(path: Path | None) -> list[Path]:
    """Return the folders in which a dataset may keep image files: its own, or Hugging Face's caches."""
    if path is not None:
        return [path.resolve() if path.is_dir() else path.resolve().parent]
    from datasets import config
    from huggingface_hub import constants

    return [Path(config.HF_DATASETS_CACHE).resolve(), Path(constants.HF_HUB_CACHE).resolve()]


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
    """The images in the rows of a table: bytes, or the paths of files in the dataset's `folders`."""

    quarantined = 0
    other_files: Sequence[str] = ()

    def __init__(
        self, table: "Dataset", path: Path, columns: _Columns, folders: Sequence[Path], uncaptioned: Uncaptioned
    ) -> None:
        import datasets

        self.path, self._columns, self._folders = path, columns, folders
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
        """Return the bytes of image k. Raises BadFile for a file that is missing, or outside the dataset's folder."""
        cell = self._table[k][self._columns.image] or {}
        if content := cell.get("bytes"):
            return bytes(content)
        row, name = f"row {self.names[k]}", cell.get("path")
        if not name:
            raise BadFile(self.path, row, "without an image", "remove the row")
        try:
            file = (self._folders[0] / name).resolve()
            if any(file.is_relative_to(folder) for folder in self._folders):
                return read_regular(file)
        except (OSError, ValueError) as error:  # ValueError: a null character in the name
            raise BadFile(self.path, row, f"its image {name!r} cannot be read ({error})") from None
        raise BadFile(self.path, row, f"its image is {name!r}, outside the dataset's folder", "embed images as bytes")

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
