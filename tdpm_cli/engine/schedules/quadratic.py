"""Linear square root of beta: less noise early on. Song et al. 2021 (the DDIM code's `quad`)."""

from tdpm_cli.config.types import Positive, Probability
from tdpm_cli.engine.schedule import Schedule, from_beta, ramp

__all__ = ["quadratic"]


def quadratic(*, steps: Positive = 1000, beta_start: Probability = 1e-4, beta_end: Probability = 0.02) -> Schedule:
    """Linear √beta."""
    return from_beta(ramp(beta_start**0.5, beta_end**0.5, steps) ** 2)
