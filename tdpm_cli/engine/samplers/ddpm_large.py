"""DDPM with the large variance beta, for comparison with early DDPM results. Ho et al. 2020, sec. 3.2."""

import math
from collections.abc import Sequence
from functools import partial

from torch import Tensor

from tdpm_cli.engine.posterior import ancestral, beta
from tdpm_cli.engine.protocols import Denoise, DrawNoise
from tdpm_cli.engine.schedule import Schedule

__all__ = ["ddpm_large"]


def ddpm_large(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: DrawNoise,
    **cond: Tensor,
) -> Tensor:
    """Ancestral sampling with variance beta, the large one (Ho et al. 2020, sec. 3.2)."""

    def std(schedule: Schedule, t: int, s: int) -> float:
        return math.sqrt(beta(schedule, t, s)) if s > 0 else 0.0  # data carry no added noise

    return ancestral(partial(denoise, **cond), x_T, times, schedule, std, noise)
