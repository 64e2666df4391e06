"""Scores from features or points: distances between two samples, in float64."""

import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor


class Moments:
    """Mean and covariance of features that come in batches, in float64; memory does not grow with their number.

    Batches are merged about their common mean, which loses nothing to cancellation (Chan et al. 1983, eq. 2.1).
    """

    def __init__(self) -> None:
        self.count, self._mean, self._scatter = 0, torch.zeros(0), torch.zeros(0, 0)

    def update(self, features: Tensor) -> None:
        """Take in features [B, D]. Raises ValueError where one is infinite or NaN."""
        x = features.double()
        if not bool(x.isfinite().all()):
            raise ValueError(f"{int((~x.isfinite().all(1)).sum())} of {len(x)} features are infinite or NaN")
        mean = x.mean(0)
        centred = x - mean
        scatter = centred.T @ centred
        if self.count:
            shift, total = mean - self._mean, self.count + len(x)
            scatter += self._scatter + torch.outer(shift, shift) * (self.count * len(x) / total)
            mean = self._mean + shift * (len(x) / total)
        self.count, self._mean, self._scatter = self.count + len(x), mean, scatter

    def result(self) -> tuple[Tensor, Tensor]:
        """Mean [D] and unbiased covariance [D, D] of the two or more features seen."""
        return self._mean, self._scatter / (self.count - 1)


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D, D] of features [N, D], N ≥ 2, in float64."""
    seen = Moments()
    seen.update(features)
    return seen.result()


def frechet(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Fréchet distance of two Gaussians, each (mean [D], covariance [D, D]) (Heusel et al. 2017, eq. 6).

    ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂ - 2 tr √(Σ₁Σ₂). Σ₁Σ₂ has the eigenvalues of √Σ₁ Σ₂ √Σ₁, which is symmetric: they
    are real and, up to rounding, at least 0, whatever the rank.
    """
    (mean_1, cov_1), (mean_2, cov_2) = first, second
    eigenvalues, axes = _eigh(cov_1)
    root = axes * eigenvalues.clamp(min=0).sqrt()  # root rootᵀ = Σ₁, and rootᵀ Σ₂ root is similar to √Σ₁ Σ₂ √Σ₁
    product = _eigh(root.T @ cov_2 @ root)[0].clamp(min=0)
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * product.sqrt().sum()
    return max(float(distance), 0.0)


def _eigh(symmetric: Tensor) -> tuple[Tensor, Tensor]:
    """Eigenvalues [D] and axes [D, D] of a symmetric matrix.

    PyTorch's LAPACK now and then gives up on one of very low rank; then NumPy's, another build, is asked.
    """
    try:
        return torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        eigenvalues, axes = np.linalg.eigh(symmetric.numpy())
        return torch.from_numpy(eigenvalues), torch.from_numpy(axes)


def kernel_distance(
    first: Tensor, second: Tensor, subsets: int = 100, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """KID of features [N, D], [M, D]: mean of MMD² over random subsets, and its standard error.

    The unbiased estimator with kernel (x·y/D + 1)³ (Bińkowski et al. 2018, eq. 3, 4). Subsets have `size`
    examples of each side: 1000, or half of the smaller side, for subsets that are all the same show no error.
    """
    size = size or max(2, min(1000, len(first) // 2, len(second) // 2))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x, y = (z[torch.randperm(len(z), generator=generator)[:size]].double() for z in (first, second))
        within = sum(_kernel(z, z).fill_diagonal_(0).sum() for z in (x, y)) / (size * (size - 1))
        values.append(within - 2 * _kernel(x, y).mean())
    found = torch.stack(values)
    return float(found.mean()), float(found.std(correction=1) / math.sqrt(subsets)) if subsets > 1 else 0.0


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3


def nearest(queries: Tensor, among: Tensor, k: int = 1, same: bool = False) -> tuple[Tensor, Tensor]:
    """Distances [N, k] from queries [N, D] to their k nearest among [M, D], nearest first, and their indices.

    `same` says that both are one sample, in which no example is its own neighbour.
    """
    found = []
    for start, distances in _distances(queries, among):
        if same:
            rows = torch.arange(len(distances))
            distances[rows, rows + start] = math.inf
        found.append(distances.topk(k, largest=False))
    return torch.cat([top.values for top in found]), torch.cat([top.indices for top in found])


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1), density and coverage (Naeem et al. 2020, eq. 3, 4).

    Of features [N, D] and [M, D], from balls around each example that reach to its k-th neighbour.
    """
    radius_real = nearest(real, real, k, same=True)[0][:, -1]
    radius_fake = nearest(fake, fake, k, same=True)[0][:, -1]
    precise = inside = 0.0
    recalled, closest = torch.zeros(len(real), dtype=torch.bool), torch.full((len(real),), math.inf)
    for start, distances in _distances(fake, real):
        within = distances <= radius_real
        precise += float(within.any(1).sum())
        inside += float(within.sum())
        recalled |= (distances <= radius_fake[start : start + len(distances), None]).any(0)
        closest = torch.minimum(closest, distances.min(0).values)
    return {
        "precision": precise / len(fake),
        "recall": float(recalled.double().mean()),
        "density": inside / (k * len(fake)),
        "coverage": float((closest <= radius_real).double().mean()),
    }


def memorised(train: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Which samples [M, D] lie closer to a training example [N, D] than that one's nearest fellow does.

    Returns that as a mask [M], the nearest training example's index [M], and the distance over its fellow's [M].
    """
    spacing = nearest(train, train, same=True)[0][:, 0]
    distance, index = (found[:, 0] for found in nearest(samples, train))
    same = distance <= 1e-6 * train.double().norm(dim=1).mean()  # up to rounding, whatever the fellow's distance
    ratio = torch.where(same, 0.0, distance / spacing[index].clamp(min=1e-300))
    return same | (distance < spacing[index]), index, ratio


def _distances(queries: Tensor, among: Tensor, chunk: int = 1000) -> Iterator[tuple[int, Tensor]]:
    """Euclidean distances [≤ chunk, M], and the first query's index, chunk by chunk."""
    among = among.double()
    for start in range(0, len(queries), chunk):
        yield start, torch.cdist(queries[start : start + chunk].double(), among)


def sliced_wasserstein(first: Tensor, second: Tensor, projections: int = 512, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of two samples [N, D], [M, D], in the data's units (Bonneel et al. 2015).

    √ of the mean, over random directions, of the squared 2-Wasserstein distance of the projections; the larger
    sample is read off at the quantiles of the smaller.
    """
    generator = torch.Generator().manual_seed(seed)
    directions = torch.randn(first.shape[1], projections, generator=generator, dtype=torch.float64)
    directions = directions / directions.norm(dim=0)
    few, many = sorted(((x.double() @ directions).sort(0).values for x in (first, second)), key=len)
    if len(few) < len(many):
        position = (torch.arange(len(few), dtype=torch.float64) + 0.5) * len(many) / len(few) - 0.5
        low = position.floor().long().clamp(0, len(many) - 2)
        many = torch.lerp(many[low], many[low + 1], (position - low)[:, None])
    return float((few - many).square().mean().sqrt())
