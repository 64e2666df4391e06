"""DDPM: ancestral sampling, best with many steps. Ho et al. 2020, eq. 7."""

from collections.abc import Sequence
from functools import partial

from torch import Tensor

from tdpm_cli.engine.posterior import ancestral, posterior_std
from tdpm_cli.engine.protocols import Denoise, DrawNoise
from tdpm_cli.engine.schedule import Schedule

__all__ = ["ddpm"]


def ddpm(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: DrawNoise,
    **cond: Tensor,
) -> Tensor:
    """Ancestral sampling with the posterior's variance, the small one (Ho et al. 2020, eq. 7)."""
    return ancestral(partial(denoise, **cond), x_T, times, schedule, posterior_std, noise)
