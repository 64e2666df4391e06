"""Cosine schedule: alpha_bar falls along a squared cosine; suits small images. Nichol and Dhariwal 2021, eq. 17."""

import math

from tdpm_cli.config.types import Positive, PositiveFloat
from tdpm_cli.engine.schedule import Schedule, from_beta, ramp

__all__ = ["cosine"]


def cosine(*, steps: Positive = 1000, offset: PositiveFloat = 0.008) -> Schedule:
    """alpha_bar along a squared cosine, beta at most 0.999 (Nichol and Dhariwal 2021, eq. 17)."""
    angle = (ramp(0, 1, steps + 1) + offset) / (1 + offset) * math.pi / 2
    alpha_bar = angle.cos() ** 2
    return from_beta((1 - alpha_bar[1:] / alpha_bar[:-1]).clamp(max=0.999))
