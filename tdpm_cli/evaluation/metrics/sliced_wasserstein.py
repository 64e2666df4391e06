"""Sliced 2-Wasserstein distance of points, in the units of the data."""

import torch
from torch import Tensor

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.summary import Summary

__all__ = ["SlicedWasserstein"]

DEFINITION = "sliced 2-Wasserstein distance, 512 random directions (Bonneel 2015)"
NEEDS = ("all_features",)
DATA = "points"
PROJECTIONS = 512


class SlicedWasserstein:
    """2-Wasserstein distance of projections to random directions. Lower is better."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score."""
        return [Score("sliced W2", sliced_wasserstein(samples.features, reference.features))]


def sliced_wasserstein(first: Tensor, second: Tensor, projections: int = PROJECTIONS, seed: int = 0) -> float:
    """Sliced 2-Wasserstein distance of two samples [N, D], [M, D], in the data's units (Bonneel et al. 2015).

    √ of the mean, over random directions, of the squared 2-Wasserstein distance of the projections. The larger
    sample is interpolated at the quantiles of the smaller one.
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
