"""Latents that `tdpm data encode` computed: means and standard deviations of each image and its mirror image."""

import json
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from annotated_types import Len
from torch import Tensor

from tdpm_cli.config.registry import load
from tdpm_cli.config.types import Positive, RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.image_files import ImageFiles, Selection
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import require_regular
from tdpm_cli.runtime.npz import parse_npy
from tdpm_cli.runtime.records import Record, check_record

__all__ = ["latents"]

ABOUT = "latents.json"  # in the zip
SUFFIX = ".npy"
MAX_ABOUT_BYTES = 1 << 20


class About(Record):
    """The origin of latents: the shape of the images, the autoencoder, the path of the images and their dataset."""

    shape: Annotated[list[Positive], Len(3, 3)]
    autoencoder: str
    autoencoder_sha256: str
    source: str
    data: str


def latents(path: Path | None, raw_shape: Sequence[int] | None) -> "LatentDataset":
    """float32 [2 · channels, h, w], mean and standard deviation, with the labels and captions of the images."""
    if path is None:
        raise InputError("no latents; name a zip that `tdpm data encode` wrote with --data PATH")
    about = read_about(path)
    if raw_shape is not None and list(raw_shape) != about.shape:
        raise InputError(f"--data {path}: latents of images {about.shape}, but space.shape is {list(raw_shape)}")
    return LatentDataset(path, about)


def recognises(path: Path) -> bool:
    """Return whether `path` is a zip of latents."""
    if path.suffix != ".zip" or not path.is_file() or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return ABOUT in archive.namelist()


def read_about(path: Path) -> About:
    """Return the origin of the latents in a zip. Raises InputError for any other file."""
    advice = "write one with `tdpm data encode`"
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo(ABOUT).file_size) > MAX_ABOUT_BYTES:
                raise ValueError(f"{ABOUT} has {size:,} bytes; at most {MAX_ABOUT_BYTES:,} are accepted")
            content = json.loads(archive.read(ABOUT))
    except (OSError, KeyError, ValueError, RecursionError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        raise InputError(f"--data {path}: not a zip of latents ({error}); {advice}") from None
    return check_record(content, About, f"--data {path}, {ABOUT}", advice)


class LatentDataset:
    """The latents in a zip."""

    def __init__(self, path: Path, about: About) -> None:
        self._entries, self._about = ImageFiles(path, selection=Selection(suffixes={SUFFIX})), about
        self.class_names = self._entries.class_names
        self.shape = tuple(self._read(0, 0).shape)
        self.prepared = f"encoded by {about.autoencoder}"
        self.notes: Sequence[str] = ()
        self.source = Path(about.source)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        return torch.stack([self._read(int(k), 0) for k in indices]), self.raw_condition(indices)

    def mirrored(self, indices: Sequence[int]) -> Tensor:
        """Return the latents of the mirror images."""
        return torch.stack([self._read(int(k), 1) for k in indices])

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of the images."""
        return self._entries.raw_condition(indices)

    def images(self) -> Dataset:
        """Open the dataset of the images. Raises InputError if it has been moved or removed."""
        if not self.source.exists():
            raise InputError(f"{self._entries.path}: its images were read from {self.source}, which no longer exists; "
                             "restore them, or name others with --ref PATH")  # fmt: skip
        images: Dataset = load("dataset", self._about.data)(self.source, tuple(self._about.shape))
        return images

    def fingerprint(self) -> str:
        """Return a hash of all entries and of the autoencoder."""
        return f"{self._entries.fingerprint()} {self._about.autoencoder_sha256}"

    def sha256(self) -> str:
        """Return the SHA-256 of the checksums of all entries."""
        return self._entries.sha256()

    def _read(self, k: int, mirrored: int) -> Tensor:
        try:
            stored = parse_npy(self._entries.content(k))
            return torch.from_numpy(stored[mirrored].astype(np.float32)).flatten(0, 1)
        except (ValueError, IndexError) as error:
            raise InputError(f"{self._entries.path}: {self._entries.names[k]} is damaged ({error}); encode the images "
                             "again") from None  # fmt: skip
