"""What can be scored: examples, or the statistics of their features."""

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data import dataset
from tdpm_cli.runtime.files import Json


@dataclass(frozen=True)
class Examples:
    """Examples of one shape, with a name `text` and everything that a protocol states about them.

    `data[indices]` returns (raw, raw_condition). `classes` names the labels. `broken` lists files that are left out, of
    `files` files found. `manifest` is the samples.json of samples, None for other data. `on_disk` means that worker
    processes should read the examples. `about` is the part of the protocol that describes a reference.
    """

    text: str
    data: dataset.Examples
    shape: tuple[int, ...]
    sha256: Callable[[], str]
    about: Json = field(default_factory=dict)
    classes: Sequence[str] = ()
    broken: tuple[str, ...] = ()
    manifest: Json | None = None
    on_disk: bool = False
    files: int = 0

    def __len__(self) -> int:
        return len(self.data)

    @property
    def is_image(self) -> bool:
        """Whether the examples are images, not points."""
        return len(self.shape) == 3

    def subset(self, indices: Sequence[int]) -> "Examples":
        """Return the examples of these numbers."""
        if list(indices) == list(range(len(self))):
            return self
        digest = lambda: hashlib.sha256(f"{self.sha256()} {list(indices)}".encode()).hexdigest()
        return replace(self, text=f"{len(indices):,} of {self.text}", data=_Subset(self.data, indices), sha256=digest)

    def random_subset(self, n: int) -> "Examples":
        """Return n examples drawn at random, because data are often sorted by class; or all if there are fewer."""
        if n >= len(self):
            return self
        return self.subset(torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:n].tolist())


@dataclass(frozen=True)
class Statistics:
    """Mean [D] and covariance [D, D] of features, from a file; `protocol` is what the file states about them."""

    text: str
    mean: Tensor
    covariance: Tensor
    sha256: Callable[[], str]
    protocol: Json | None


Input = Examples | Statistics


@dataclass(frozen=True)
class _Subset:
    data: dataset.Examples
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        return self.data[[self.indices[k] for k in indices]]

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of these examples."""
        return self.data.raw_condition([self.indices[k] for k in indices])
