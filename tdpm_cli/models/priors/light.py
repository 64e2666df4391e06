"""A light generator of x_0 from a vector z, noised to T as the data are; learns in minutes on a CPU."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, relu

from tdpm_cli.config.types import Positive, Positives
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.models.light import ConditionEmbedding, ModulatedNorm, ResidualBlock, conv, linear
from tdpm_cli.runtime.errors import InputError

__all__ = ["LightPrior"]


class LightPrior(nn.Module):
    """x_T = alpha_T · G(z) + sigma_T · eps; z is `latent` numbers, and (z, eps) come as one flat draw.

    `channels` are those of G's levels from the smallest map up; the last level is doubled by a pixel shuffle, so that
    the smallest map is 2^len(channels) times smaller than the image. It has `blocks` residual blocks. Raises InputError
    where the shape cannot be halved so often.
    """

    has_generator = True
    makes_x_0 = True
    learns = True
    shares = False
    nfe = 1

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        schedule: Schedule,
        network: nn.Module,
        *,
        latent: Positive = 64,
        channels: Positives = [96, 64],  # noqa: B006 (never written to)
        blocks: Positive = 1,
        embedding: Positive = 128,
    ) -> None:
        super().__init__()
        self.generator = Generator(shape, sizes, latent, channels, blocks, embedding)
        self.shape, self.latent, self.schedule = tuple(shape), latent, schedule
        self.z_shape = (latent + math.prod(shape),)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, z_shape] to x_T [B, *shape]."""
        return self.schedule.q_sample_T(*self.x_0_and_eps(z, **cond))

    def x_0_and_eps(self, z: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map (z, eps) [B, z_shape] to x_0 and eps, each [B, *shape]."""
        z, eps = z.split([self.latent, math.prod(self.shape)], 1)
        return self.generator(z, **cond), eps.view(-1, *self.shape)

    def start(self, network: nn.Module) -> None:
        """Do nothing: the generator has another architecture."""


class Generator(nn.Module):
    """G: z [B, latent] -> x_0 [B, C, H, W], with labels [B] or pooled texts [B, D]; its output is linear."""

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], latent: int, channels: Sequence[int], blocks: int,
        embedding: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"prior.name is 'light', but the data have shape {list(shape)}, not [C, H, W]")
        if "low" in sizes:
            raise InputError("prior.name is 'light', which takes no smaller image; use shared or copy")
        factor = 2 ** len(channels)
        if shape[1] % factor or shape[2] % factor:
            raise InputError(
                f"prior.channels has {len(channels)} levels, so height and width must divide by {factor}, but the "
                f"images are {shape[1]} × {shape[2]}; use fewer levels or another size"
            )
        self.smallest = (channels[0], shape[1] // factor, shape[2] // factor)
        self.condition = ConditionEmbedding(sizes, latent) if sizes else None
        inputs = 2 * latent if sizes else latent
        self.map_1, self.map_2 = linear(inputs, embedding, 1.4), linear(embedding, embedding, 1.4)
        self.enter = linear(inputs, math.prod(self.smallest))
        self.blocks = nn.ModuleList(ResidualBlock(channels[0], channels[0], embedding, relu) for _ in range(blocks))
        self.upsample = nn.ModuleList(
            ResidualBlock(a, b, embedding, relu, upsample=True) for a, b in itertools.pairwise(channels)
        )
        self.norm = ModulatedNorm(channels[-1], embedding)
        self.leave = conv(channels[-1], 4 * shape[0])

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        if self.condition is not None:
            z = torch.cat([z, self.condition(z, **cond)], 1)
        embedding = relu(self.map_2(relu(self.map_1(z))))
        h = self.enter(z).view(-1, *self.smallest)
        h = h.contiguous(memory_format=torch.channels_last)
        for block in (*self.blocks, *self.upsample):
            h = block(h, embedding)
        return pixel_shuffle(self.leave(relu(self.norm(h, embedding))), 2).float()
