"""Scores from features or points: distances between two samples, in float64."""

import torch
from torch import Tensor


def moments(features: Tensor) -> tuple[Tensor, Tensor]:
    """Mean [D] and unbiased covariance [D, D] of features [N, D], N ≥ 2, in float64."""
    features = features.double()
    mean = features.mean(0)
    centred = features - mean
    return mean, centred.T @ centred / (len(features) - 1)


def frechet(first: tuple[Tensor, Tensor], second: tuple[Tensor, Tensor]) -> float:
    """Fréchet distance of two Gaussians, each (mean [D], covariance [D, D]) (Heusel et al. 2017, eq. 6).

    ‖μ₁ - μ₂‖² + tr Σ₁ + tr Σ₂ - 2 tr √(Σ₁Σ₂); the eigenvalues of Σ₁Σ₂ are real and at least 0, up to rounding.
    """
    (mean_1, cov_1), (mean_2, cov_2) = first, second
    eigenvalues = torch.linalg.eigvals(cov_1 @ cov_2).real.clamp(min=0)
    distance = (mean_1 - mean_2).square().sum() + cov_1.trace() + cov_2.trace() - 2 * eigenvalues.sqrt().sum()
    return max(float(distance), 0.0)


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
