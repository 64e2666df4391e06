"""What is kept of one side of a score, gathered in batches; and the cache of it for references.

The cache lies in the user's cache folder, named by the hash of all that a summary depends on. Two processes that
build the same one at once both write the same content, and each write replaces the file as a whole.
"""

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from platformdirs import user_cache_path
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from tdpm_cli.evaluation.distances import Moments
from tdpm_cli.runtime import distributed

FORMAT = 1  # of a cached file


@dataclass(frozen=True)
class Summary:
    """Mean [D] and unbiased covariance [D, D] of `count` features, and `features` [K, D], of some of them.

    `indices` [K] are their examples' numbers, `labels` [K] their classes, where they have any; `broken` names
    the files that could not be read. `alignment` [count] is that of images and captions, where it was asked for.
    """

    count: int
    mean: Tensor
    covariance: Tensor
    features: Tensor
    indices: Tensor
    labels: Tensor | None = None
    broken: tuple[str, ...] = ()
    alignment: Tensor | None = None

    def some(self, most: int) -> Tensor:
        """At most `most` of the features kept, drawn at random."""
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(0))
        return self.features[order[:most]]


class Gathering:
    """Builds a Summary from batches: the moments of all features, and `keep` of the `total` features themselves.

    Those are drawn at random, for data often lie sorted by class. Memory grows with `keep`, not with `total`.
    """

    def __init__(self, total: int, keep: int) -> None:
        self._moments = Moments()
        self._features, self._indices, self._labels = list[Tensor](), list[Tensor](), list[Tensor]()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        self._chosen = torch.zeros(total, dtype=torch.bool)
        self._chosen[order[:keep]] = True

    def update(self, indices: Tensor, features: Tensor, labels: Tensor | None) -> None:
        """Take in features [B, D] of the examples `indices` [B]. Raises ValueError where one is infinite or NaN."""
        self._moments.update(features)
        chosen = self._chosen[indices]
        self._features.append(features[chosen])
        self._indices.append(indices[chosen])
        if labels is not None:
            self._labels.append(labels[chosen])

    def summary(self, broken: tuple[str, ...] = ()) -> Summary:
        """What was gathered, of two examples or more."""
        mean, covariance = self._moments.result()
        labels = torch.cat(self._labels) if self._labels else None
        features, indices = torch.cat(self._features), torch.cat(self._indices)
        return Summary(self._moments.count, mean, covariance, features, indices, labels, broken)


def cache_folder() -> Path:
    """Where summaries of references are kept."""
    return user_cache_path("tdpm") / "references"


def cached(key: Mapping[str, Any], build: Callable[[], Summary]) -> Summary:
    """The summary of this key from the cache; or built, and put there for the next time."""
    name = hashlib.sha256(json.dumps({"format": FORMAT, **key}, sort_keys=True).encode()).hexdigest()
    path = cache_folder() / f"{name}.safetensors"

    def look() -> Summary | None:
        # Missing, damaged, or taken away while it was opened (a RuntimeError of the library's): built anew.
        with suppress(OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError):
            return _load(path)
        return None

    if (found := distributed.from_first(look)) is not None:
        return found
    summary = build()
    if distributed.is_first():
        with suppress(OSError):  # a cache that cannot be written costs time, no more
            _save(path, summary)
    return summary


def _save(path: Path, summary: Summary) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    tensors = {key: getattr(summary, key) for key in ("mean", "covariance", "features", "indices", "labels")}
    says = {"count": str(summary.count), "broken": json.dumps(summary.broken)}
    handle, part = tempfile.mkstemp(dir=path.parent, suffix=".part")
    os.close(handle)
    try:
        save_file({key: value.contiguous() for key, value in tensors.items() if value is not None}, part, says)
        os.replace(part, path)
    except SafetensorError as error:  # how the library reports a full disk
        raise OSError(str(error)) from None
    finally:
        with suppress(FileNotFoundError):
            os.unlink(part)


def _load(path: Path) -> Summary:
    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        says = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (the file is no mapping)
    return Summary(int(says["count"]), broken=tuple(json.loads(says["broken"])), **tensors)
