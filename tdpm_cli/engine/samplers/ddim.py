"""DDIM: the deterministic default; eta adds noise. Song et al. 2021, eq. 12, 16."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Annotated

from annotated_types import doc
from torch import Tensor

from tdpm_cli.config.types import NonNegative
from tdpm_cli.engine.posterior import posterior_std
from tdpm_cli.engine.protocols import Denoise, DrawNoise
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full

__all__ = ["ddim"]


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: DrawNoise,
    *,
    eta: Annotated[NonNegative, doc("Noise of each step: 0 none, 1 as DDPM.")] = 0.0,
    **cond: Tensor,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12, 16): deterministic at eta = 0, the DDPM posterior at eta = 1."""
    x = x_T
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t), **cond)
        eps = (x - schedule.alpha(t) * x_0) / schedule.sigma(t)
        std = eta * posterior_std(schedule, t, s)
        # For eta > 1 the added noise may exceed sigma_s; then no predicted noise remains.
        kept = math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0))
        x = schedule.alpha(s) * x_0 + kept * eps
        if std > 0:
            x = x + std * noise()
    return x
