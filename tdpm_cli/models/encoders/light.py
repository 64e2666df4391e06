"""A light encoder of images for the objective `likelihood`, with the layers of the light discriminator."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pixel_unshuffle

from tdpm_cli.config.types import Positives
from tdpm_cli.models.light import SLOPE, ConditionEmbedding, HalvingBlock, check_images, conv, linear

__all__ = ["LightEncoder"]

LOG_VARIANCE = (-12.0, 4.0)  # of q(z | x_0): bounds that keep an untrained encoder finite


class LightEncoder(nn.Module):
    """x_0 [B, C, H, W], with labels [B] or pooled texts [B, D] -> mean and log-variance [B, latent] of q(z | x_0).

    The stem halves the image by a pixel unshuffle; each further entry of `channels` halves it again. Raises InputError
    as the discriminator does.
    """

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        latent: int,
        *,
        channels: Positives = [64, 128, 128],  # noqa: B006 (never written to)
    ) -> None:
        super().__init__()
        check_images("encoder", shape, sizes)
        height, width = shape[1] // 2, shape[2] // 2
        self.enter = conv(4 * shape[0], channels[0])
        self.blocks = nn.ModuleList(HalvingBlock(a, b) for a, b in itertools.pairwise(channels))
        for _ in self.blocks:
            height, width = (height + 1) // 2, (width + 1) // 2
        last = channels[-1]
        self.conv = conv(last, last, gain=1.4)
        self.flat = linear(last * height * width, last, 1.4)
        self.condition = ConditionEmbedding(sizes, last)
        self.leave = linear(last, 2 * latent, 0.5)

    def forward(self, x: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and log-variance of q(z | x_0), in float32."""
        h = self.enter(pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        h = self.flat(leaky_relu(self.conv(leaky_relu(h, SLOPE)), SLOPE).flatten(1))
        mean, log_variance = self.leave(leaky_relu(h + self.condition(h, **cond), SLOPE)).float().chunk(2, 1)
        return mean, log_variance.clamp(*LOG_VARIANCE)
