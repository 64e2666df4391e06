"""The adversarial game at the truncation point: losses of logits, and gradient penalties."""

from collections.abc import Callable
from contextlib import nullcontext

import torch
from torch import Tensor
from torch.nn.functional import softplus

from tdpm_cli.config.settings import AdversarialLoss

Critic = Callable[..., Tensor]


def prior_loss(loss: AdversarialLoss, fake: Tensor, real: Tensor) -> Tensor:
    """Loss of the prior from the discriminator's logits [B] on fake and real: [B].

    "logistic" is the non-saturating loss (Goodfellow et al. 2014, sec. 3), which leaves `real` unused;
    "relativistic" pairs each fake with a real (Jolicoeur-Martineau 2019; Huang et al. 2024, eq. 2).
    """
    return softplus(-fake) if loss == "logistic" else softplus(real - fake)


def discriminator_loss(loss: AdversarialLoss, fake: Tensor, real: Tensor) -> Tensor:
    """Loss of the discriminator from its logits [B] on fake and real: [B]."""
    return softplus(fake) + softplus(-real) if loss == "logistic" else softplus(fake - real)


def gradient_penalty(discriminator: Critic, x: Tensor, gamma: float, **cond: Tensor) -> Tensor:
    """(gamma/2) ‖∇_x D(x)‖² [B]: R1 on real x, R2 on fake (Mescheder et al. 2018, eq. 9, 10).

    Runs in float32 and eagerly, for it is differentiated twice.
    """
    has_autocast = torch.amp.is_autocast_available(x.device.type)  # "meta" has none
    with torch.autocast(x.device.type, enabled=False) if has_autocast else nullcontext(), torch.enable_grad():
        x = x.detach().float().requires_grad_()
        (gradient,) = torch.autograd.grad(discriminator(x, **cond).sum(), x, create_graph=True)
    return gamma / 2 * gradient.square().flatten(1).sum(1)
