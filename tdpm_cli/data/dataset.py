"""The interface that every dataset implements, and the optional abilities that some add."""

import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.decode import Box

HASHED_TOGETHER = 1000  # examples that `content_sha256` reads at a time
EpochOrder = Callable[[np.random.Generator], np.ndarray]  # draws a permutation of all examples


class Examples(Protocol):
    """Examples by number: those of a dataset, of a part of one, or of a model."""

    def __len__(self) -> int: ...

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        """Return raw [len(indices), *shape] and the raw conditions of these examples."""

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of these examples without reading the examples."""


class Dataset(Examples, Protocol):
    """Examples to train on or to compare with."""

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one raw example."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, by label; empty without classes."""

    @property
    def prepared(self) -> str:
        """How examples were brought to `shape`."""

    @property
    def notes(self) -> Sequence[str]:
        """What a user should know about the data, such as files left out."""

    def fingerprint(self) -> str:
        """Return a hash that is cheap to compute and changes with the data."""

    def sha256(self) -> str:
        """Return the SHA-256 of all examples and their conditions."""


class ImageSource(Protocol):
    """Encoded images by number, with their names, classes and captions."""

    @property
    def path(self) -> object:
        """Where the images are stored, for messages."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image."""

    @property
    def class_names(self) -> Sequence[str]:
        """The names of the classes, by label; empty without classes."""

    @property
    def quarantined(self) -> int:
        """The number of images that a quarantine list leaves out."""

    @property
    def without_caption(self) -> Sequence[str]:
        """The names of the images that have no caption, where others have one."""

    @property
    def other_files(self) -> Sequence[str]:
        """The names of files that are not images."""

    def content(self, k: int) -> bytes:
        """Return the bytes of image k. Raises InputError for an image that cannot be read."""

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of these images."""

    def fingerprint(self) -> str:
        """Return a hash that is cheap to compute and changes with the files."""

    def sha256(self) -> str:
        """Return the SHA-256 of the content of all images."""


@runtime_checkable
class FromImageFiles(Protocol):
    """A dataset that decodes image files; `box` is the part that it crops from each first."""

    files: ImageSource
    box: Box | None


@runtime_checkable
class KeepsInMemory(Protocol):
    """A dataset that can keep decoded examples in memory."""

    def keep_in_memory(self, limit: float) -> bool:
        """Keep examples in memory that worker processes share; return False if they need more than `limit` bytes."""


@runtime_checkable
class OrdersEpochs(Protocol):
    """A dataset that may be slow to read in an arbitrary order."""

    def epoch_order(self) -> EpochOrder | None:
        """Return a function that draws the order of an epoch; None where any order is fast."""


@runtime_checkable
class OrdersFiles(Protocol):
    """An image source that is slow to read in an arbitrary order."""

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """Draw a permutation of all images that is fast to read."""


@runtime_checkable
class EncodedImages(Protocol):
    """A dataset of latents, computed from the images at `source` and from their mirror images."""

    @property
    def source(self) -> Path: ...

    def mirrored(self, indices: Sequence[int]) -> Tensor:
        """Return the latents of the mirror images."""

    def images(self) -> Dataset:
        """Open the dataset of the images. Raises InputError if they cannot be found."""


def take(raw_condition: RawCondition, positions: Sequence[int]) -> RawCondition:
    """Return the raw conditions at these positions."""
    chosen = list(positions)
    return {  # type: ignore[return-value]
        key: value[chosen] if isinstance(value, Tensor) else [value[k] for k in chosen]  # type: ignore[index]
        for key, value in raw_condition.items()
    }


def pieces_of(n: int, size: int) -> list[range]:
    """Split 0..n-1 into pieces of `size`; the last one may be smaller.

    The pieces are always the same ones, because a network rounds differently in a batch of another size.
    """
    return [range(start, min(start + size, n)) for start in range(0, n, size)]


def content_sha256(dataset: Dataset) -> str:
    """Return the SHA-256 of a dataset's class names, examples and conditions, by reading all of them."""
    digest = hashlib.sha256(str(list(dataset.class_names)).encode())
    for piece in pieces_of(len(dataset), HASHED_TOGETHER):
        raw, raw_condition = dataset[piece]
        values = sorted(raw_condition.items())
        digest.update(f"{raw.dtype} {raw.shape} {sorted(raw_condition)}".encode())
        for value in (raw, *(value for _, value in values)):
            digest.update(value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()
