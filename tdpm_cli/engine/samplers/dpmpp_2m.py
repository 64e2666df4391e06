"""DPM-Solver++(2M): second order, for 3 to 20 steps. Lu et al. 2022, algorithm 2."""

import math
from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from tdpm_cli.engine.protocols import Denoise, DrawNoise
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full

__all__ = ["dpmpp_2m"]


def dpmpp_2m(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: DrawNoise,
    **cond: Tensor,
) -> Tensor:
    """DPM-Solver++(2M), second order from one call a step (Lu et al. 2022, algorithm 2)."""
    x, before, h_before = x_T, None, 0.0
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t), **cond)
        if s == 0:  # the step in log-SNR is infinite: x_0 itself
            return x_0
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        guess = x_0
        # In pure noise (log-SNR -inf) the step is first order, and so is the next one.
        if before is not None and math.isfinite(h_before):
            guess = x_0 + (x_0 - before) * (h / (2 * h_before))
        x = (schedule.sigma(s) / schedule.sigma(t)) * x - schedule.alpha(s) * math.expm1(-h) * guess
        before, h_before = x_0, h
    return x
