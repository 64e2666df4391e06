"""Data sets of Hugging Face's `datasets`: saved to a folder, parquet or Arrow files, or from the hub."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.captions import Uncaptioned, keep
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import InputError

__all__ = ["huggingface"]

SAVED = ("dataset_info.json", "dataset_dict.json")  # of a folder that `save_to_disk` wrote


def huggingface(
    path: Path | None, raw_shape: Sequence[int] | None, *, hub: str | None = None, split: str = "train",
    image: str | None = None, label: str | None = None, captions: str | None = None,
    crop: Crop = "centre", upscale: bool = False, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Images of the column `image`, by default the first of images; labels of `label`, by default the first of
    classes; captions of `captions`.

    `path` is what `save_to_disk` wrote, or a folder of parquet files; without it `hub` names a data set of the hub,
    taken from its cache or downloaded to there. No code of a data set is run. Raises InputError for what is not there.
    """
    try:
        import datasets
    except ImportError:
        raise InputError(
            "the data 'huggingface' need a package; install it with: pip install 'tdpm-cli[datasets]'"
        ) from None
    if (path is None) == (hub is None):
        raise InputError("the data 'huggingface' are given by --data PATH or by data.hub=OWNER/NAME; give one of them")
    datasets.disable_progress_bars()
    try:
        if path is None:
            found = datasets.load_dataset(hub, split=split)
        elif any((path / name).is_file() for name in SAVED):
            found = datasets.load_from_disk(str(path))
            found = found[split] if isinstance(found, dict) else found
        else:
            files = sorted(map(str, path.rglob("*.parquet"))) if path.is_dir() else [str(path)]
            found = datasets.Dataset.from_parquet(files)
    except Exception as error:  # of the network, of Arrow, of a split that is not there
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(f"--data {path or hub}: the data set cannot be read ({reason})") from None
    rows = Rows(found, path or Path(str(hub)), image, label, captions, uncaptioned)
    return ImageDataset(rows, raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Whether `path` is a data set that was saved, or holds parquet files."""
    return path.suffix == ".parquet" or (
        path.is_dir() and (any((path / name).is_file() for name in SAVED) or any(path.glob("*.parquet")))
    )


class Rows:
    """The images of a data set by number."""

    quarantined = 0
    other_files: Sequence[str] = ()

    def __init__(
        self, data: Any, path: Path, image: str | None, label: str | None, captions: str | None,
        uncaptioned: Uncaptioned = "fail",
    ) -> None:  # fmt: skip
        import datasets

        self.path = path
        features = data.features
        self.image = image or next((key for key, f in features.items() if isinstance(f, datasets.Image)), None)
        for column in filter(None, (self.image, label, captions)):
            if column not in features:
                raise InputError(f"{path}: no column {column!r}; it has: {', '.join(features)}")
        if self.image is None:
            raise InputError(f"{path}: no column of images; it has: {', '.join(features)}. Name one by data.image")
        self.names, self.without_caption = [str(k) for k in range(len(data))], list[str]()
        if captions:
            without = [name for name, cell in zip(self.names, data[captions], strict=True) if not _texts(cell)]
            self.without_caption = without
            kept = keep(path, self.names, self.without_caption, uncaptioned)
            data, self.names = data.select(kept), [self.names[k] for k in kept]
        if not self.names:
            raise InputError(f"{path}: the data set is empty, or has no captions in the column {captions!r}")
        classed = label or next((key for key, f in features.items() if isinstance(f, datasets.ClassLabel)), None)
        self._labels = torch.tensor(data[classed][:]) if classed else None
        names = getattr(features[classed], "names", None) if classed else []
        self.class_names = list(
            names or numbered_names(-1 if self._labels is None else int(self._labels.max()), str(path))
        )
        if self._labels is not None and int(self._labels.min()) < 0:
            raise InputError(
                f"{path}: {classed} has labels below 0, for examples without a class; choose another split"
            )
        self._data, self._captions = data.cast_column(self.image, datasets.Image(decode=False)), captions

    def content(self, k: int) -> bytes:
        """The bytes of image k."""
        cell = self._data[k][self.image]
        if cell and cell.get("bytes"):
            return bytes(cell["bytes"])
        try:
            return Path(cell["path"]).read_bytes()
        except (TypeError, OSError) as error:
            raise InputError(f"{self.path}: the image of row {k} is missing ({error})") from None

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Labels and captions, where there are any."""
        found: RawCondition = {}
        if self._labels is not None:
            found["label"] = self._labels[torch.as_tensor(indices)]
        if self._captions:
            given = self._data.select_columns(self._captions)[list(indices)][self._captions]
            found["captions"] = [_texts(cell) or ("",) for cell in given]
        return found

    def fingerprint(self) -> str:
        """Of the number of rows, and what `datasets` knows of the content."""
        return hashlib.sha256(
            f"{len(self.names)} {self._data.info.dataset_size} {self.class_names}".encode()
        ).hexdigest()

    def sha256(self) -> str:
        """Of the contents of all images."""
        digest = hashlib.sha256()
        for k in range(len(self.names)):
            digest.update(hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()


def _texts(cell: Any) -> tuple[str, ...]:
    """The captions in a cell: a text, a list of texts, or nothing."""
    texts = [cell] if isinstance(cell, str) else cell or []
    return tuple(text.strip() for text in texts if text and text.strip())
