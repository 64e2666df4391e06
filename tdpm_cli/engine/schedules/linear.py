"""Linear beta: the DDPM default. Ho et al. 2020, sec. 4."""

from tdpm_cli.config.types import Positive, Probability
from tdpm_cli.engine.schedule import Schedule, from_beta, ramp

__all__ = ["linear"]


def linear(*, steps: Positive = 1000, beta_start: Probability = 1e-4, beta_end: Probability = 0.02) -> Schedule:
    """Linear beta (Ho et al. 2020, sec. 4)."""
    return from_beta(ramp(beta_start, beta_end, steps))
