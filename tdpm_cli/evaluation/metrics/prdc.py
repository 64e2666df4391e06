"""Precision, recall, density and coverage: fidelity and diversity, each on its own."""

import math

import torch
from torch import Tensor

from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.neighbours import distance_blocks, nearest
from tdpm_cli.evaluation.summary import Summary
from tdpm_cli.runtime.errors import InputError

__all__ = ["PrecisionRecall"]

DEFINITION = "precision, recall: 3 neighbours (Kynkäänniemi 2019); density, coverage: 5 neighbours (Naeem 2020)"
NEEDS = ("features",)
PUBLISHED = {3: ("precision", "recall"), 5: ("precision", "recall", "density", "coverage")}  # by number of neighbours


class PrecisionRecall:
    """Precision and density: samples near the data. Recall and coverage: data near the samples. Higher is better."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Return six scores. Raises InputError for fewer than 6 examples of either side."""
        real, fake = reference.random_features(), samples.random_features()
        smaller = min(len(real), len(fake))
        if smaller <= max(PUBLISHED):
            raise InputError(f"prdc: {smaller} examples; {max(PUBLISHED)} neighbours need at least 6 of each side")
        return [
            Score(f"{name} (k = {k})", value)
            for k, names in PUBLISHED.items()
            for name, value in prdc(real, fake, k).items()
            if name in names
        ]


def prdc(real: Tensor, fake: Tensor, k: int = 5) -> dict[str, float]:
    """Precision and recall (Kynkäänniemi et al. 2019, eq. 1), density and coverage (Naeem et al. 2020, eq. 3, 4).

    Of features [N, D] and [M, D], by balls around each example whose radius is the distance to its k-th neighbour.
    """
    radius_real = nearest(real, real, k, same=True)[0][:, -1]
    radius_fake = nearest(fake, fake, k, same=True)[0][:, -1]
    precise = inside = 0.0
    recalled, closest = torch.zeros(len(real), dtype=torch.bool), torch.full((len(real),), math.inf)
    for start, distances in distance_blocks(fake, real):
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
