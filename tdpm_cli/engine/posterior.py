"""The posterior q(x_s | x_t, x_0) of a step from t to s, and ancestral sampling from it."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

from tdpm_cli.engine.protocols import Denoise, DrawNoise
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full


def beta(schedule: Schedule, t: int, s: int) -> float:
    """Return 1 - alpha_bar_t / alpha_bar_s, the variance that the forward process adds from s to t."""
    return 1 - (schedule.alpha(t) / schedule.alpha(s)) ** 2


def posterior_std(schedule: Schedule, t: int, s: int) -> float:
    """Return the standard deviation of q(x_s | x_t, x_0)."""
    return schedule.sigma(s) / schedule.sigma(t) * math.sqrt(beta(schedule, t, s))


def ancestral(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    std: Callable[[Schedule, int, int], float],
    noise: DrawNoise,
) -> Tensor:
    """Ancestral sampling; std(schedule, t, s) is the standard deviation of the noise of a step from t to s."""
    x = x_T
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t))
        # Mean of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 7, for a step from t to s).
        of_x_0 = schedule.alpha(s) * beta(schedule, t, s) / schedule.sigma(t) ** 2
        of_x_t = schedule.alpha(t) / schedule.alpha(s) * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2
        x = of_x_0 * x_0 + of_x_t * x
        if (width := std(schedule, t, s)) > 0:
            x = x + width * noise()
    return x
