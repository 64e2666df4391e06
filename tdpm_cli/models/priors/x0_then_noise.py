"""StyleGAN2 generates x_0, then noise to T: a separate prior with exact noise. Karras et al. 2020a."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.config.types import Positive
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.models.stylegan2 import Generator

__all__ = ["X0ThenNoise"]


class X0ThenNoise(nn.Module):
    """x_T = alpha_T · G(z) + sigma_T · eps, where G is the generator of the prior `stylegan2`, with its keys.

    The noise at T is exact by construction, so the adversarial loss concerns the data alone.
    z and eps are drawn together.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = True
    learns = True
    shares = False

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        schedule: Schedule,
        network: nn.Module,
        *,
        latent: Positive = 512,
        layers: Positive = 8,
        channel_base: Positive = 16384,
        channel_max: Positive = 512,
    ) -> None:
        super().__init__()
        self.generator = Generator(shape, sizes, latent, layers, channel_base, channel_max)
        self.shape, self.schedule, (size,) = tuple(shape), schedule, self.generator.z_shape
        self.z_shape = (size + math.prod(shape),)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, z_shape] to x_T [B, *shape]."""
        return self.schedule.q_sample_T(*self.x_0_and_eps(z, **cond))

    def x_0_and_eps(self, z: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map (z, eps) [B, z_shape] to x_0 and eps, each [B, *shape]."""
        z, eps = z.split([self.generator.z_shape[0], math.prod(self.shape)], 1)
        return self.generator(z, **cond), eps.view(-1, *self.shape)

    def start(self, network: nn.Module) -> None:
        """Do nothing: the generator has another architecture."""
