"""Classifier-free guidance, and bounds on estimates of x_0."""

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from tdpm_cli.engine.protocols import Denoise


def guided(call: Callable[..., Tensor], null: Mapping[str, Tensor], guidance_scale: float) -> Callable[..., Tensor]:
    """Classifier-free guidance: null + guidance_scale · (cond - null), 1 = off (Ho and Salimans 2022, eq. 6).

    `call` is a denoiser, call(x_t, t, **cond), or a prior, call(z, **cond). `null` is the condition "nothing" for one
    batch. One call with twice the batch computes both estimates.
    """
    if guidance_scale == 1:
        return call

    def guided_call(*inputs: Tensor, **cond: Tensor) -> Tensor:
        both = {key: torch.cat([null[key].expand_as(value), value]) for key, value in cond.items()}
        outputs, n = call(*(torch.cat([x, x]) for x in inputs), **both), inputs[0].shape[0]
        without, with_cond = outputs[:n], outputs[n:]  # chunk(2) would fix the batch of an exported graph
        return without + guidance_scale * (with_cond - without)

    return guided_call


def clipped(denoise: Denoise, bounds: tuple[float, float] | None) -> Denoise:
    """Clamp estimates of x_0 to the bounds of the data, such as (-1, 1) for pixels; None = off."""
    if bounds is None:
        return denoise
    return lambda x_t, t, **cond: denoise(x_t, t, **cond).clamp(*bounds)
