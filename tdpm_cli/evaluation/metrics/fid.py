"""Fréchet distance of image features: FID by Inception, FD by other features."""

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.summary import Summary

__all__ = ["FrechetDistance"]

DEFINITION = "Fréchet distance of feature means and unbiased covariances, from eigenvalues in float64 (Heusel 2017)"
NEEDS = ("moments",)
DATA = "images"
FULL_COUNT = 50_000  # samples that a published FID is computed from; a score of fewer carries their number


class FrechetDistance:
    """Fréchet distance of two Gaussians with the means and covariances of the features. Lower is better."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score, named by its features and the number of samples."""
        value = frechet((samples.mean, samples.covariance), (reference.mean, reference.covariance))
        return [Score(distance_name(samples.feature_name, samples.count), value)]


def distance_name(features: str, n: int) -> str:
    """Return "FID" only for the published Inception and 50,000 samples; else name the features and the number."""
    name = "FID" if features == "inception" else f"FD-{features}"
    if n == 0:  # a file of statistics that does not contain the number
        return f"{name}, n unknown"
    if n >= FULL_COUNT:
        return name
    return f"{name}-{n // 1000}k" if n % 1000 == 0 else f"{name}-{n}"


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

    PyTorch's LAPACK sometimes fails to converge on a matrix of very low rank; then NumPy's is used.
    """
    try:
        return torch.linalg.eigh(symmetric)
    except torch.linalg.LinAlgError:
        eigenvalues, axes = np.linalg.eigh(symmetric.numpy())
        return torch.from_numpy(eigenvalues), torch.from_numpy(axes)
