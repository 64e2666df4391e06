"""Reverse chains: each sampler is one pure function of this file, found by its name.

    sampler(denoise, x_T, times, schedule, noise, **cond) -> x_0

`denoise(x_t, t, **cond)` estimates x_0; `times` is [T, ..., 0] from `Schedule.respace`; `noise()` returns a
fresh standard normal [B, *shape]. Each step calls `denoise` once, so the network is called len(times) - 1
times. Keyword-only arguments are the sampler's options.
"""

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise

import torch
from torch import Tensor

from tdpm_cli.config.settings import HANDED_IN
from tdpm_cli.config.types import NonNegative
from tdpm_cli.engine.schedule import Schedule

Denoise = Callable[..., Tensor]
Noise = Callable[[], Tensor]


def ddim(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: Noise,
    *,
    eta: NonNegative = 0.0,
    **cond: Tensor,
) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12, 16): deterministic at eta = 0, the DDPM posterior at eta = 1."""
    x = x_T
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t), **cond)
        eps = (x - schedule.alpha(t) * x_0) / schedule.sigma(t)
        std = eta * _posterior_std(schedule, t, s)
        # For eta > 1 the fresh noise may outgrow sigma_s; no predicted noise is kept then.
        kept = math.sqrt(max(schedule.sigma(s) ** 2 - std**2, 0))
        x = schedule.alpha(s) * x_0 + kept * eps
        if std > 0:
            x = x + std * noise()
    return x


def ddpm(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: Noise,
    **cond: Tensor,
) -> Tensor:
    """Ancestral sampling with the posterior's variance, the small one (Ho et al. 2020, eq. 7)."""
    return _ancestral(denoise, x_T, times, schedule, _posterior_std, noise, cond)


def ddpm_large(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: Noise,
    **cond: Tensor,
) -> Tensor:
    """Ancestral sampling with variance beta, the large one (Ho et al. 2020, sec. 3.2)."""

    def std(schedule: Schedule, t: int, s: int) -> float:
        return math.sqrt(_beta(schedule, t, s)) if s > 0 else 0.0  # data carry no added noise

    return _ancestral(denoise, x_T, times, schedule, std, noise, cond)


def dpmpp_2m(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    noise: Noise,
    **cond: Tensor,
) -> Tensor:
    """DPM-Solver++(2M), second order from one call a step (Lu et al. 2022, algorithm 2)."""
    x, before, h_before = x_T, None, 0.0
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t), **cond)
        if s == 0:  # the step in log-SNR is infinite: exact, and first order
            return x_0
        h = (schedule.log_snr(s) - schedule.log_snr(t)) / 2
        guess = x_0
        # Where no signal is left (log-SNR -inf) the step is first order, and so is the one after it.
        if before is not None and math.isfinite(h_before):
            guess = x_0 + (x_0 - before) * (h / (2 * h_before))
        x = (schedule.sigma(s) / schedule.sigma(t)) * x - schedule.alpha(s) * math.expm1(-h) * guess
        before, h_before = x_0, h
    return x


def guided(call: Callable[..., Tensor], null: Mapping[str, Tensor], scale: float) -> Callable[..., Tensor]:
    """Classifier-free guidance: null + scale · (cond - null), 1 = off (Ho and Salimans 2022, eq. 6).

    Of a denoiser, call(x_t, t, **cond), or of a prior, call(z, **cond). `null` holds the condition "nothing" for one
    batch. Both estimates come from one call of twice the batch.
    """
    if scale == 1:
        return call

    def guided_call(*inputs: Tensor, **cond: Tensor) -> Tensor:
        both = {key: torch.cat([null[key].expand_as(value), value]) for key, value in cond.items()}
        found, n = call(*(torch.cat([each, each]) for each in inputs), **both), inputs[0].shape[0]
        without, with_cond = found[:n], found[n:]  # not chunk(2), which would fix the batch of an exported graph
        return without + scale * (with_cond - without)

    return guided_call


def clipped(denoise: Denoise, bounds: tuple[float, float] | None) -> Denoise:
    """Keep the estimate of x_0 within the data's bounds, e.g. (-1, 1) for pixels; None = off."""
    if bounds is None:
        return denoise
    return lambda x_t, t, **cond: denoise(x_t, t, **cond).clamp(*bounds)


def names() -> dict[str, Callable[..., Tensor]]:
    """Every sampler of this file by name: the public functions that start as the module's head says."""
    return {
        name: value
        for name, value in globals().items()
        if inspect.isfunction(value)
        and not name.startswith("_")
        and list(inspect.signature(value).parameters)[: len(HANDED_IN)] == list(HANDED_IN)
    }


def full(x: Tensor, t: int) -> Tensor:
    """t for each example of x: int64 [B]."""
    # Not len(x), here and in the priors: it is a plain int, which would fix the batch of an exported graph.
    return torch.full((x.shape[0],), t, device=x.device)


def _beta(schedule: Schedule, t: int, s: int) -> float:
    """1 - alpha_bar_t / alpha_bar_s: the noise that the steps from s to t add."""
    return 1 - (schedule.alpha(t) / schedule.alpha(s)) ** 2


def _posterior_std(schedule: Schedule, t: int, s: int) -> float:
    """Standard deviation of q(x_s | x_t, x_0)."""
    return schedule.sigma(s) / schedule.sigma(t) * math.sqrt(_beta(schedule, t, s))


def _ancestral(
    denoise: Denoise,
    x_T: Tensor,
    times: Sequence[int],
    schedule: Schedule,
    std: Callable[[Schedule, int, int], float],
    noise: Noise,
    cond: Mapping[str, Tensor],
) -> Tensor:
    x = x_T
    for t, s in pairwise(times):
        x_0 = denoise(x, full(x, t), **cond)
        # Mean of q(x_s | x_t, x_0) (Ho et al. 2020, eq. 7, for a step from t to s).
        of_x_0 = schedule.alpha(s) * _beta(schedule, t, s) / schedule.sigma(t) ** 2
        of_x_t = schedule.alpha(t) / schedule.alpha(s) * schedule.sigma(s) ** 2 / schedule.sigma(t) ** 2
        x = of_x_0 * x_0 + of_x_t * x
        if (width := std(schedule, t, s)) > 0:
            x = x + width * noise()
    return x
