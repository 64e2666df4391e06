"""Share of samples that copy a training example."""

import torch
from torch import Tensor

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.neighbours import nearest
from tdpm_cli.evaluation.summary import Summary

__all__ = ["Memorised"]

ALIASES = ("memorized",)
DEFINITION = "share of samples nearer to a training example than that example's nearest neighbour in the data"
NEEDS = ("all_features",)
PAIRS_SHOWN = 8


class Memorised:
    """Share of samples nearer to a training example than its neighbour. About half for fresh draws of the data."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return one score, and the pairs of a sample and a training example with the smallest ratio of distances."""
        mask, index, ratio = memorised(reference.features, samples.features)
        pairs = tuple(
            (int(samples.indices[k]), int(reference.indices[index[k]])) for k in ratio.argsort()[:PAIRS_SHOWN].tolist()
        )
        return [Score("memorised", float(mask.double().mean()), pairs=pairs)]


def memorised(train: Tensor, samples: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Find samples [M, D] that are nearer to a training example [N, D] than that example's nearest neighbour is.

    Returns them as a mask [M], the index of the nearest training example [M], and the ratio [M] of the sample's
    distance to that of the neighbour.
    """
    spacing = nearest(train, train, same=True)[0][:, 0]
    distance, index = (column[:, 0] for column in nearest(samples, train))
    same = distance <= 1e-6 * train.double().norm(dim=1).mean()  # up to rounding, whatever the neighbour's distance
    ratio = torch.where(same, 0.0, distance / spacing[index].clamp(min=1e-300))
    return same | (distance < spacing[index]), index, ratio
