"""TDPM: a denoiser and a prior; and `generate`, from seeds to finished examples."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from tdpm_cli.config import registry
from tdpm_cli.engine.denoiser import Denoiser
from tdpm_cli.engine.guidance import clipped, guided
from tdpm_cli.engine.inversion import invert
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond, Condition, RawCondition, Space, taken


class TDPM(nn.Module):
    """p(x_0) = ∫ p(x_T) Π p(x_{t-1} | x_t): `prior` draws x_T, `denoiser` steps from there to x_0."""

    def __init__(self, denoiser: Denoiser, prior: nn.Module) -> None:
        super().__init__()
        self.denoiser = denoiser
        self.prior: Any = prior  # a Prior, and a Module

    def nfe(self, steps: int, guidance_scale: float = 1.0, prior_guidance_scale: float = 1.0) -> int:
        """Network calls for one example: the prior's, and one a step; each twice where guided."""
        return int(self.prior.nfe) * (1 if prior_guidance_scale == 1 else 2) + steps * (1 if guidance_scale == 1 else 2)

    def draw_x_T(
        self,
        noise: Noise,
        cond: Cond,
        *,
        guidance_scale: float = 1.0,
        null: Cond | None = None,
        precision: str = "fp32",
    ) -> Tensor:
        """x_T [B, *shape] from the prior, with z drawn."""
        return self.x_T_of(
            noise.normal(self.prior.z_shape), cond, guidance_scale=guidance_scale, null=null, precision=precision
        )

    def x_T_of(
        self, z: Tensor, cond: Cond, *, guidance_scale: float = 1.0, null: Cond | None = None, precision: str = "fp32"
    ) -> Tensor:
        """x_T [B, *shape] that the prior makes of z: P(z, null) + guidance_scale · (P(z, cond) - P(z, null)), 1 = off.

        Where P(z, cond) = alpha_T G(z, cond) + sigma_T eps, eps being part of z, this moves G alone, and the noise
        stays at T. Other priors make noise and data in one, and what differs of the noise grows, too.
        """
        with _autocast(z, precision):
            x_T = self._guided(self.prior, null, guidance_scale)(z, **self.denoiser.read(cond))
        return x_T.float()

    def decode(
        self,
        x_T: Tensor,
        noise: Noise,
        cond: Cond,
        *,
        steps: int,
        sampler: str = "ddim",
        spacing: float = 1.0,
        t: int | None = None,
        guidance_scale: float = 1.0,
        null: Cond | None = None,
        bounds: tuple[float, float] | None = None,
        precision: str = "fp32",
        **options: float,
    ) -> Tensor:
        """x_0 [B, *shape] from x_T [B, *shape], drawn or real, in `steps` reverse steps.

        Where `t` is given, from x_t. `spacing` is of `Schedule.respace`; `guidance_scale` other than 1 needs `null`,
        the condition "nothing"; `precision` is of network calls, "fp32" or "bf16"; `options` are the sampler's own.
        """
        schedule = self.denoiser.schedule if t is None else self.denoiser.schedule.truncate(step=t)
        denoise, cond = (
            clipped(self._guided(self.denoiser, null, guidance_scale), bounds),
            self.denoiser.read(cond),
        )
        reverse = registry.load("sampler", sampler)
        fresh = lambda: noise.normal(x_T.shape[1:])
        with _autocast(x_T, precision):  # elementwise operations, all that a sampler does itself, stay in float32
            return reverse(denoise, x_T, schedule.respace(steps, spacing), schedule, noise=fresh, **options, **cond)

    def invert(
        self,
        x_0: Tensor,
        cond: Cond,
        *,
        steps: int,
        spacing: float = 1.0,
        iterations: int = 1,
        t: int | None = None,
        guidance_scale: float = 1.0,
        null: Cond | None = None,
    ) -> Tensor:
        """x_T (x_t, where `t` is given) [B, *shape] that `decode` brings back to x_0 [B, *shape].

        By as many steps of ddim, without `bounds`; see `engine.inversion`.
        """
        schedule = self.denoiser.schedule if t is None else self.denoiser.schedule.truncate(step=t)
        denoise, cond = self._guided(self.denoiser, null, guidance_scale), self.denoiser.read(cond)
        return invert(denoise, x_0, schedule.respace(steps, spacing), schedule, iterations=iterations, **cond)

    def _guided(self, call: Callable[..., Tensor], null: Cond | None, guidance_scale: float) -> Callable[..., Tensor]:
        return call if guidance_scale == 1 else guided(call, self.denoiser.read(null or {}), guidance_scale)


def _autocast(x: Tensor, precision: str) -> AbstractContextManager[object]:
    return torch.autocast(x.device.type, dtype=torch.bfloat16) if precision == "bf16" else nullcontext()


@torch.inference_mode()
def generate(
    model: TDPM,
    space: Space,
    condition: Condition,
    seed: int,
    indices: Sequence[int],
    batch: int,
    *,
    given: RawCondition | None = None,
    device: torch.device | str = "cpu",
    prior_guidance_scale: float = 1.0,
    precision: str = "fp32",
    **sampler: Any,
) -> Iterator[Tensor]:
    """Yield batches of raw, the examples `indices`; example k depends on (seed, k) and its condition alone.

    `given` are the conditions of all of `indices`; without them they are drawn. `prior_guidance_scale` guides the
    prior, and `sampler` goes to `TDPM.decode`.
    """
    for start in range(0, len(indices), batch):
        chunk = indices[start : start + batch]
        noise = Noise(seed, chunk, device)
        chosen = condition.draw(len(chunk), noise) if given is None else taken(given, range(start, start + len(chunk)))
        cond = {key: value.to(device) for key, value in condition.encode(chosen).items()}
        null = {key: value.to(device) for key, value in condition.null(len(chunk)).items()}
        x_T = model.draw_x_T(noise, cond, guidance_scale=prior_guidance_scale, null=null, precision=precision)
        x_0 = model.decode(x_T, noise, cond, null=null, bounds=space.bounds, precision=precision, **sampler)
        yield space.decode(x_0)
