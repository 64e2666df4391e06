"""TDPM: a denoiser and a prior, from z to x_T and from x_T to x_0."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tdpm_cli.config import registry
from tdpm_cli.engine.denoiser import Denoiser
from tdpm_cli.engine.guidance import clipped, guided
from tdpm_cli.engine.inversion import invert
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class ReverseSettings:
    """How to compute x_0 from x_t: the times, the sampler, and how each call of the denoiser is changed."""

    steps: int
    spacing: float = 1.0  # see `Schedule.respace`
    sampler: str = "ddim"
    options: Mapping[str, float] = field(default_factory=dict)  # of the sampler
    guidance_scale: float = 1.0  # 1 = off; other values need the condition "nothing"
    precision: str = "fp32"  # of the network calls: fp32 or bf16
    bounds: tuple[float, float] | None = None  # to clip each estimate of x_0 to; None = no clipping
    t: int | None = None  # the noise level to start from; None = T


class TDPM(nn.Module):
    """p(x_0) = ∫ p(x_T) Π p(x_{t-1} | x_t): `prior` draws x_T, `denoiser` steps from there to x_0."""

    def __init__(self, denoiser: Denoiser, prior: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.prior: Any = prior  # a `Prior` and an `nn.Module`: Python has no type for both

    def nfe(self, steps: int, guidance_scale: float = 1.0, prior_guidance_scale: float = 1.0) -> int:
        """Count the network calls for one example: the prior's, plus one a step. Guidance doubles what it guides."""
        return int(self.prior.nfe) * (1 if prior_guidance_scale == 1 else 2) + steps * (1 if guidance_scale == 1 else 2)

    def x_T_of(
        self, z: Tensor, cond: Cond, *, guidance_scale: float = 1.0, null: Cond | None = None, precision: str = "fp32"
    ) -> Tensor:
        """Return the prior's x_T [B, *shape]: P(z, null) + guidance_scale · (P(z, cond) - P(z, null)); 1 = off.

        A prior P(z, cond) = alpha_T G(z, cond) + sigma_T eps, where eps is a part of z, keeps its noise at T, because
        guidance changes G alone. Of other priors guidance amplifies differences of the noise as well as of the data.
        """
        with _autocast(z, precision):
            x_T = self._guided(self.prior, null, guidance_scale)(z, **self.denoiser.encode_condition(cond))
        return x_T.float()

    def decode(
        self, x_t: Tensor, noise: Noise, cond: Cond, settings: ReverseSettings, null: Cond | None = None
    ) -> Tensor:
        """Return x_0 [B, *shape] from x_t [B, *shape], whose noise level is `settings.t`.

        `noise` serves the samplers that add noise. `null` is the condition "nothing", which guidance needs.
        """
        schedule = self._schedule(settings)
        denoise = clipped(self._guided(self.denoiser, null, settings.guidance_scale), settings.bounds)
        sampler = registry.load("sampler", settings.sampler)
        with _autocast(x_t, settings.precision):  # a sampler's own elementwise operations stay in float32
            return sampler(
                denoise, x_t, schedule.respace(settings.steps, settings.spacing), schedule,
                noise=lambda: noise.normal(x_t.shape[1:]), **settings.options, **self.denoiser.encode_condition(cond),
            )  # fmt: skip

    def invert(
        self, x_0: Tensor, cond: Cond, settings: ReverseSettings, *, iterations: int = 1, null: Cond | None = None
    ) -> Tensor:
        """Return the x_t [B, *shape] that `decode` with DDIM and without bounds maps to x_0 [B, *shape].

        See `engine.inversion` for `iterations`.
        """
        schedule, times = self._schedule(settings), self._schedule(settings).respace(settings.steps, settings.spacing)
        denoise = self._guided(self.denoiser, null, settings.guidance_scale)
        return invert(denoise, x_0, times, schedule, iterations=iterations, **self.denoiser.encode_condition(cond))

    def _schedule(self, settings: ReverseSettings) -> Schedule:
        schedule = self.denoiser.schedule
        return schedule if settings.t is None else schedule.truncate(step=settings.t)

    def _guided(self, call: Callable[..., Tensor], null: Cond | None, guidance_scale: float) -> Callable[..., Tensor]:
        return call if guidance_scale == 1 else guided(call, self.denoiser.encode_condition(null or {}), guidance_scale)


def _autocast(x: Tensor, precision: str) -> AbstractContextManager[object]:
    return torch.autocast(x.device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()
