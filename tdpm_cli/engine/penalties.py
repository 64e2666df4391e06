"""Gradient penalties on the discriminator."""

from contextlib import nullcontext

import torch
from torch import Tensor

from tdpm_cli.engine.protocols import Discriminator


def gradient_penalty(discriminator: Discriminator, x: Tensor, gamma: float, **cond: Tensor) -> Tensor:
    """Return (gamma/2) ‖∇_x D(x)‖² [B]: R1 on real x, R2 on fake x (Mescheder et al. 2018, eq. 9, 10).

    Computed in float32, because the penalty is differentiated twice.
    """
    has_autocast = torch.amp.is_autocast_available(x.device.type)  # the device "meta" has none
    with torch.autocast(x.device.type, enabled=False) if has_autocast else nullcontext(), torch.enable_grad():
        x = x.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x, **cond).sum(), x, create_graph=True)
    return gamma / 2 * gradient.square().flatten(1).sum(1)
