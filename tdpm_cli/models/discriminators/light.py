"""A light discriminator without norms: a pixel-unshuffle stem and strided residual blocks, for 28 to 64 pixels."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, pixel_unshuffle

from tdpm_cli.config.types import Natural, Positives
from tdpm_cli.models.layers import with_minibatch_std
from tdpm_cli.models.light import SLOPE, ConditionEmbedding, HalvingBlock, check_images, conv, linear

__all__ = ["LightDiscriminator"]


class LightDiscriminator(nn.Module):
    """x [B, C, H, W], with labels [B] or pooled texts [B, D] -> logits [B].

    The stem halves the image by a pixel unshuffle; each further entry of `channels` halves it again.
    `minibatch_std` is the group whose spread becomes one more channel (0 = off). A label or a text acts by projection
    (Miyato and Koyama 2018). Raises InputError for odd sides and for images that the halvings leave empty.
    """

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        *,
        channels: Positives = [64, 128, 128],  # noqa: B006 (never written to)
        minibatch_std: Natural = 4,
    ) -> None:
        super().__init__()
        check_images("discriminator", shape, sizes)
        height, width = shape[1] // 2, shape[2] // 2
        self.enter = conv(4 * shape[0], channels[0])
        self.blocks = nn.ModuleList(HalvingBlock(a, b) for a, b in itertools.pairwise(channels))
        for _ in self.blocks:
            height, width = (height + 1) // 2, (width + 1) // 2
        last = channels[-1]
        self.minibatch_std, self.group = minibatch_std, max(minibatch_std, 1)
        self.conv = conv(last + (minibatch_std > 0), last, gain=1.4)
        self.flat = linear(last * height * width, last, 1.4)
        self.leave = linear(last, 1)
        self.condition = ConditionEmbedding(sizes, last)

    def forward(self, x: Tensor, **cond: Tensor) -> Tensor:
        """Return logits [B]. A text's tokens are ignored."""
        h = self.enter(pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        if self.minibatch_std:
            h = with_minibatch_std(h, self.minibatch_std)
        h = leaky_relu(self.conv(leaky_relu(h, SLOPE)), SLOPE)
        h = leaky_relu(self.flat(h.flatten(1)), SLOPE)
        projection = (h * self.condition(h, **cond)).sum(1) / math.sqrt(h.shape[1])
        return self.leave(h)[:, 0] + projection
