"""Latents that `tdpm data encode` made of images: means and standard deviations, of each image and its mirror image."""

import json
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config.registry import load
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.npz import array_of

__all__ = ["latents"]

ABOUT = "latents.json"  # in the zip: what the latents are of
SUFFIX = ".npy"
LARGEST_TEXT = 1 << 20  # bytes of that file


def latents(path: Path | None, raw_shape: Sequence[int] | None) -> "Encoded":
    """float32 [2 · channels, h, w], mean and standard deviation; labels and captions as the images had them."""
    if path is None:
        raise InputError("no latents: give a zip that `tdpm data encode` wrote with --data PATH")
    about = read_about(path)
    if raw_shape is not None and list(raw_shape) != about["shape"]:
        raise InputError(f"--data {path}: latents of images {about['shape']}, but space.shape is {list(raw_shape)}")
    return Encoded(path, about)


def recognises(path: Path) -> bool:
    """Whether `path` is a zip of latents."""
    if path.suffix != ".zip" or not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return ABOUT in archive.namelist()


def read_about(path: Path) -> dict[str, Any]:
    """What the latents are of. Raises InputError for another file."""
    try:
        with zipfile.ZipFile(path) as archive:
            if (size := archive.getinfo(ABOUT).file_size) > LARGEST_TEXT:
                raise ValueError(f"{ABOUT} has {size:,} bytes; at most {LARGEST_TEXT:,} are accepted")
            about = json.loads(archive.read(ABOUT))
            return {key: about[key] for key in ("shape", "autoencoder", "autoencoder_sha256", "source", "data")}
    except (OSError, KeyError, ValueError, TypeError, RecursionError, zipfile.BadZipFile) as error:
        raise InputError(f"--data {path}: no zip of latents ({error}); `tdpm data encode` writes one") from None


class Encoded:
    """The latents in a zip by number."""

    def __init__(self, path: Path, about: dict[str, Any]) -> None:
        self.entries, self.about = ImageFiles(path, suffixes={SUFFIX}), about
        self.class_names, self.notes = self.entries.class_names, list[str]()
        self.shape = tuple(self._one(0, 0).shape)
        self.prepared = f"encoded by {about['autoencoder']}"

    def __len__(self) -> int:
        return len(self.entries.names)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        return self._read(indices, 0), self.raw_condition(indices)

    def mirrored(self, indices: Sequence[int]) -> Tensor:
        """Of the mirror images."""
        return self._read(indices, 1)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Labels and captions, where there are any."""
        return self.entries.raw_condition(indices)

    def images(self) -> Dataset:
        """The images that these are of. Raises InputError where they are no longer there."""
        source = Path(self.about["source"])
        if not source.exists():
            raise InputError(f"{self.entries.path}: the images that its latents are of, {source}, are not there; "
                             "put them back, or give others with --ref PATH")  # fmt: skip
        images: Dataset = load("dataset", self.about["data"])(source, tuple(self.about["shape"]))
        return images

    def fingerprint(self) -> str:
        """Of all entries, and of the autoencoder."""
        return f"{self.entries.fingerprint()} {self.about['autoencoder_sha256']}"

    def sha256(self) -> str:
        """Of all entries, by the zip's own checksums."""
        return self.entries.sha256()

    def _read(self, indices: Sequence[int], mirrored: int) -> Tensor:
        return torch.stack([self._one(int(k), mirrored) for k in indices])

    def _one(self, k: int, mirrored: int) -> Tensor:
        try:
            stored = array_of(self.entries.content(k))
            return torch.from_numpy(stored[mirrored].astype(np.float32)).flatten(0, 1)
        except (ValueError, IndexError) as error:
            raise InputError(f"{self.entries.path}: {self.entries.names[k]} is damaged ({error}); encode the images "
                             "again") from None  # fmt: skip
