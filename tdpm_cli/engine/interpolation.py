"""Interpolate between examples without leaving the distribution of x_T or z."""

import torch
from torch import Tensor

from tdpm_cli.engine.schedule import Schedule


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate on the great circle from a (share 0) to b [*shape], which keeps the norm. Shoemake 1985."""
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if float(angle.sin()) < 1e-6:  # parallel: no great circle is defined
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin()


def between_x_T(x_T: tuple[Tensor, Tensor], x_0: tuple[Tensor, Tensor], share: float, schedule: Schedule) -> Tensor:
    """Interpolate two x_T [*shape] with known x_0: the data linearly, the noise on the great circle.

    x_T = alpha_T x_0 + sigma_T eps. Linear interpolation of x_T would weaken the noise half-way, below the level at
    which the denoiser expects it.
    """
    alpha, sigma = schedule.alpha(schedule.T), schedule.sigma(schedule.T)
    eps = [(noisy - alpha * clean) / sigma for noisy, clean in zip(x_T, x_0, strict=True)]
    return alpha * torch.lerp(*x_0, share) + sigma * slerp(eps[0], eps[1], share)
