"""Sigmoid beta: little noise in the first steps, as in GeoDiff. Xu et al. 2022."""

from tdpm_cli.config.types import Positive, Probability
from tdpm_cli.engine.schedule import Schedule, from_beta, ramp

__all__ = ["sigmoid"]


def sigmoid(*, steps: Positive = 1000, beta_start: Probability = 1e-4, beta_end: Probability = 0.02) -> Schedule:
    """Beta along a logistic curve over [-6, 6]."""
    return from_beta(beta_start + (beta_end - beta_start) * ramp(-6, 6, steps).sigmoid())
