"""What metrics read of one side of a score, built in batches; and the cache of it for references.

The cache is in the user's cache folder. A file's name is the hash of everything that the summary depends on. Processes
that build the same summary at the same time write the same content, and each write replaces the whole file.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from tdpm_cli.checkpoints import weights
from tdpm_cli.evaluation.moments import Moments
from tdpm_cli.runtime import caches, distributed
from tdpm_cli.runtime.files import json_sha256

CACHE_FORMAT = 1
CACHED_TENSORS = ("mean", "covariance", "features", "indices", "labels", "images")
MAX_FEATURES = 10_000  # of each side, drawn at random, for metrics that need some features


@dataclass(frozen=True)
class Summary:
    """Features of samples or of a reference: mean [D] and unbiased covariance [D, D] of all `count`, and some of them.

    `features` [K, D] are those of the examples `indices` [K]; `labels` [K] their classes, named by `classes`;
    `images` uint8 [K, C, H, W] the examples themselves, if a metric needs them. `broken` names files that could not be
    decoded. `alignment` [count] measures how well images fit their captions; `alignment_name` names that score.
    `feature_name` is the extractor's name, "" for points, whose features are their coordinates.
    """

    count: int
    mean: Tensor
    covariance: Tensor
    features: Tensor
    indices: Tensor
    labels: Tensor | None = None
    broken: tuple[str, ...] = ()
    images: Tensor | None = None
    alignment: Tensor | None = None
    alignment_name: str = ""
    feature_name: str = ""
    classes: tuple[str, ...] = ()

    def random_features(self, limit: int | None = None) -> Tensor:
        """Return at most `limit` (or MAX_FEATURES) of the features, drawn at random with a fixed seed."""
        order = torch.randperm(len(self.features), generator=torch.Generator().manual_seed(0))
        return self.features[order[: MAX_FEATURES if limit is None else limit]]


class SummaryBuilder:
    """Builds a Summary from batches: the moments of all features, and `keep` of the `total` features themselves.

    Those are drawn at random, because data are often sorted by class. Memory grows with `keep`, not with `total`.
    """

    def __init__(self, total: int, keep: int) -> None:
        self._moments = Moments()
        self._features, self._indices = list[Tensor](), list[Tensor]()
        self._labels, self._images, self._alignment = list[Tensor](), list[Tensor](), list[Tensor]()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        self._chosen = torch.zeros(total, dtype=torch.bool)
        self._chosen[order[:keep]] = True

    def update(self, indices: Tensor, features: Tensor, labels: Tensor | None) -> None:
        """Add features [B, D] of the examples `indices` [B]. Raises ValueError if one is infinite or NaN."""
        self._moments.update(features)
        chosen = self._chosen[indices]
        self._features.append(features[chosen])
        self._indices.append(indices[chosen])
        if labels is not None:
            self._labels.append(labels[chosen])

    def add_images(self, indices: Tensor, images: Tensor) -> None:
        """Keep the images [B, C, H, W] of those examples whose features are kept."""
        self._images.append(images[self._chosen[indices]])

    def add_alignment(self, alignment: Tensor) -> None:
        """Add the alignment [B] of images and captions."""
        self._alignment.append(alignment)

    def summary(self, broken: tuple[str, ...] = ()) -> Summary:
        """Return the summary of two or more examples."""
        mean, covariance = self._moments.result()
        joined = lambda tensors: torch.cat(tensors) if tensors else None
        return Summary(
            self._moments.count, mean, covariance, torch.cat(self._features), torch.cat(self._indices),
            joined(self._labels), broken, joined(self._images), joined(self._alignment),
        )  # fmt: skip


def cache_folder() -> Path:
    """Return the folder of cached summaries."""
    return caches.cache_folder("references")


def cached(key: Mapping[str, object], build: Callable[[], Summary]) -> Summary:
    """Return the summary of this key from the cache; if it is not there, build it and cache it."""
    path = cache_folder() / f"{json_sha256({'format': CACHE_FORMAT, **key})}.safetensors"

    if (summary := distributed.from_first(lambda: caches.look_up(path, _load))) is not None:
        return summary
    summary = build()
    if distributed.is_first():
        caches.keep(path, lambda path: _save(path, summary))
    return summary


def _save(path: Path, summary: Summary) -> None:
    tensors = {key: getattr(summary, key) for key in CACHED_TENSORS}
    metadata = {"count": str(summary.count), "broken": json.dumps(summary.broken)}
    weights.write_tensors(path, {key: value for key, value in tensors.items() if value is not None}, metadata)


def _load(path: Path) -> Summary:
    if not path.is_file():
        raise FileNotFoundError(path)
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (the file is not a mapping)
    return Summary(int(metadata["count"]), broken=tuple(json.loads(metadata["broken"])), **tensors)
