"""Scores of images or points against a reference: what is measured, and the name that it has earned.

Images are compared by features; points are their own. The distance (Fréchet of features, sliced Wasserstein of
points) is always measured; KID, precision and so on where asked for.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.engine import scores
from tdpm_cli.errors import InputError
from tdpm_cli.run.report import Meter

EXTRAS = ("kid", "prdc", "memorised")  # beside the distance
KEEP = 10_000  # examples of each side, drawn at random, that KID and precision and its kin are computed from


@dataclass(frozen=True)
class Score:
    """One figure under its own name. `error` is its standard error, where it has one."""

    name: str
    value: float
    error: float | None = None

    @property
    def text(self) -> str:
        """The figure to four digits."""
        return f"{self.value:.4g}" + ("" if self.error is None else f" ± {self.error:.2g}")


class Scorer:
    """Scores of samples against one reference, whose features are computed once.

    `reference` is a data set; `extract` a part of `parts/features`, or None for points. Raises InputError for
    samples and references too few to score.
    """

    def __init__(
        self, reference: Any, extract: Any, name: str = "", batch: int = 64, extras: Collection[str] = ()
    ) -> None:
        self.extract, self.name, self.batch, self.extras = extract, name, batch, tuple(extras)
        self.size = len(reference)
        if self.size < 2:
            raise InputError(f"{self.size} references: a score needs at least 2")
        self._reference = self._summary("reference", batches_of(reference, batch), self.size)

    def score(self, samples: Iterable[Tensor], count: int) -> list[Score]:
        """Every score of `count` samples that come in batches of raw; the distance first."""
        if count < 2:
            raise InputError(f"{count} samples: a score needs at least 2")
        drawn, data = self._summary("samples", samples, count), self._reference
        found = [Score(distance_name(self.name, drawn.count), drawn.distance(data))]
        if "kid" in self.extras:
            name = "KID" if self.name == "inception" else f"KD-{self.name}" if self.name else "KD"
            found.append(Score(name, *scores.kernel_distance(drawn.some, data.some)))
        if "prdc" in self.extras:
            found += self._prdc(data.some, drawn.some)
        if "memorised" in self.extras:
            mask, _, _ = scores.memorised(data.kept, drawn.kept)
            found.append(Score("memorised", float(mask.double().mean())))
        return found

    def _prdc(self, real: Tensor, fake: Tensor) -> list[Score]:
        smaller = min(len(real), len(fake))
        if smaller <= 5:
            raise InputError(f"{smaller} examples: precision and its kin need more than 5 of each, for 5 neighbours")
        # Precision and recall were published with 3 neighbours, density and coverage with 5.
        return [
            Score(f"{name} (k = {k})", value)
            for k, names in ((3, ("precision", "recall")), (5, ("precision", "recall", "density", "coverage")))
            for name, value in scores.prdc(real, fake, k).items()
            if name in names
        ]

    def _summary(self, label: str, raws: Iterable[Tensor], total: int) -> "_Summary":
        # A copy may be of any training example, and points are compared whole: for these all are kept.
        whole = self.extract is None or "memorised" in self.extras
        summary = _Summary(self.extract is None, total if whole else KEEP if self.extras else 0, total)
        with Meter(f"features of {label}", total) as meter:
            for raw in raws:
                features = raw.float().flatten(1) if self.extract is None else self.extract(raw).cpu()
                try:
                    summary.update(features)
                except ValueError as error:
                    raise InputError(f"{label}: {error}; the model or the features' weights are damaged") from None
                meter.advance(len(raw))
        return summary


class _Summary:
    """What is kept of one side: moments of all features, and `keep` of the `total` features themselves.

    Those are drawn at random, for data often lie sorted by class.
    """

    def __init__(self, points: bool, keep: int, total: int) -> None:
        self._moments, self._points, self._kept = scores.Moments(), points, list[Tensor]()
        order = torch.randperm(total, generator=torch.Generator().manual_seed(0))
        self._chosen = torch.zeros(total, dtype=torch.bool)
        self._chosen[order[:keep]] = True

    def update(self, features: Tensor) -> None:
        chosen = self._chosen[self.count : self.count + len(features)]
        self._moments.update(features)
        self._kept.append(features[chosen])

    @property
    def count(self) -> int:
        return self._moments.count

    @property
    def kept(self) -> Tensor:
        return torch.cat(self._kept)

    @property
    def some(self) -> Tensor:
        """At most KEEP of those kept, drawn at random."""
        order = torch.randperm(len(self.kept), generator=torch.Generator().manual_seed(0))
        return self.kept[order[:KEEP]]

    def distance(self, other: "_Summary") -> float:
        if self._points:
            return scores.sliced_wasserstein(self.kept, other.kept)
        return scores.frechet(self._moments.result(), other._moments.result())


def distance_name(features: str, n: int) -> str:
    """ "FID" only for clean-fid's Inception and 50,000 images; fewer are named, and so are other features."""
    if not features:
        return "sliced W2"
    name = "FID" if features == "inception" else f"FD-{features}"
    if n >= 50_000:
        return name
    return f"{name}-{n // 1000}k" if n % 1000 == 0 else f"{name}-{n}"


def batches_of(data: Any, batch: int, limit: int | None = None) -> Iterator[Tensor]:
    """Batches of raw of the first `limit` examples of a data set or a tensor."""
    size = min(len(data), limit or len(data))
    for start in range(0, size, batch):
        chunk = range(start, min(start + batch, size))
        yield data[chunk.start : chunk.stop] if isinstance(data, Tensor) else data[chunk][0]
