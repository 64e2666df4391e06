"""Kernel distance of features: KID by Inception, KD by other features; unbiased, with its standard error."""

import math

import torch
from torch import Tensor

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.summary import Summary

__all__ = ["KernelDistance"]

DEFINITION = (
    "KID: unbiased MMD² of the kernel (x·y/D + 1)³, mean and standard error of 100 random subsets of 1000, "
    "or of half of the smaller side (Bińkowski 2018)"
)
NEEDS = ("features",)
SUBSETS, SUBSET_SIZE = 100, 1000


class KernelDistance:
    """Squared maximum mean discrepancy (MMD²) with a cubic kernel. Lower is better; negative values occur near 0."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score with its standard error, named by its features."""
        name = {"inception": "KID", "": "KD"}.get(samples.feature_name, f"KD-{samples.feature_name}")
        return [Score(name, *kernel_distance(samples.random_features(), reference.random_features()))]


def kernel_distance(
    first: Tensor, second: Tensor, subsets: int = SUBSETS, size: int | None = None, seed: int = 0
) -> tuple[float, float]:
    """KID of features [N, D], [M, D]: mean of MMD² over random subsets, and its standard error.

    The unbiased estimator with kernel (x·y/D + 1)³ (Bińkowski et al. 2018, eq. 3, 4). Subsets have `size` examples of
    each side: 1000, or half of the smaller side, because identical subsets would have no error.
    """
    size = size or max(2, min(SUBSET_SIZE, len(first) // 2, len(second) // 2))
    generator = torch.Generator().manual_seed(seed)
    values = []
    for _ in range(subsets):
        x, y = (z[torch.randperm(len(z), generator=generator)[:size]].double() for z in (first, second))
        within = sum(_kernel(z, z).fill_diagonal_(0).sum() for z in (x, y)) / (size * (size - 1))
        values.append(within - 2 * _kernel(x, y).mean())
    mmd = torch.stack(values)
    return float(mmd.mean()), float(mmd.std(correction=1) / math.sqrt(subsets)) if subsets > 1 else 0.0


def _kernel(x: Tensor, y: Tensor) -> Tensor:
    return (x @ y.T / x.shape[1] + 1) ** 3
