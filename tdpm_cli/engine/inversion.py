"""Inversion of DDIM: from data to the x_T that deterministic sampling maps back to them."""

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor

from tdpm_cli.engine.protocols import Denoise
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full


def invert(
    denoise: Denoise, x_0: Tensor, times: Sequence[int], schedule: Schedule, *, iterations: int = 1, **cond: Tensor
) -> Tensor:
    """Return x_T [B, *shape] from x_0 [B, *shape]; `times` is [T, ..., 0], as for a sampler.

    A step of DDIM from t to s solves x_t / alpha_t - x_s / alpha_s = (sigma_t / alpha_t - sigma_s / alpha_s) eps for
    x_s, where eps is the network's at x_t (Song et al. 2021, eq. 13). In reverse, x_t is on both sides: a fixed-point
    iteration starts from x_s. One iteration is the usual inversion; more are closer to the exact one. The network is
    called (len(times) - 1) · iterations times.
    """
    x = x_0
    for s, t in pairwise(reversed(times)):
        shrink = schedule.alpha(t) / schedule.alpha(s)
        added = schedule.sigma(t) - shrink * schedule.sigma(s)
        x_s = x
        for _ in range(iterations):
            eps = (x - schedule.alpha(t) * denoise(x, full(x, t), **cond)) / schedule.sigma(t)
            x = shrink * x_s + added * eps
    return x
