"""Ways from one example to another that stay where examples are."""

import torch
from torch import Tensor

from tdpm_cli.engine.schedule import Schedule


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Between a and b [*shape] on the great circle, share 0 being a (Shoemake 1985): normal numbers keep their norm."""
    cosine = torch.nn.functional.cosine_similarity(a.flatten(), b.flatten(), dim=0).clamp(-1, 1)
    angle = torch.arccos(cosine)
    if float(angle.sin()) < 1e-6:  # the same direction: there is no circle
        return torch.lerp(a, b, share)
    return (torch.sin((1 - share) * angle) * a + torch.sin(share * angle) * b) / angle.sin()


def between_x_T(x_T: tuple[Tensor, Tensor], x_0: tuple[Tensor, Tensor], share: float, schedule: Schedule) -> Tensor:
    """x_T [*shape] between two, whose data x_0 are known: the data on a line, their noise on a circle.

    x_T = alpha_T x_0 + sigma_T eps. A line between the x_T themselves would weaken the noise half-way, to a level that
    the denoiser was not told.
    """
    alpha, sigma = schedule.alpha(schedule.T), schedule.sigma(schedule.T)
    eps = [(noisy - alpha * clean) / sigma for noisy, clean in zip(x_T, x_0, strict=True)]
    return alpha * torch.lerp(*x_0, share) + sigma * slerp(eps[0], eps[1], share)
