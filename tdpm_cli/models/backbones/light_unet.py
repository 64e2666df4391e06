"""A light U-Net for 28 to 64 pixels on a CPU: a thin full-resolution level, additive skips, RMS norm."""

import itertools
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import pixel_shuffle, silu

from tdpm_cli.config.types import Positive, Positives
from tdpm_cli.models.layers import time_frequencies, waves
from tdpm_cli.models.light import ConditionEmbedding, ModulatedNorm, ResidualBlock, SelfAttention, conv, linear
from tdpm_cli.runtime.errors import InputError

__all__ = ["LightUNet"]

FREQUENCIES = 32  # of the time embedding


class LightUNet(nn.Module):
    """x [B, C, H, W], t [B] -> [B, C, H, W], with labels [B] or pooled texts [B, D].

    `channels` are those of each level, from the full resolution down; each level halves the last. The lowest level
    attends with `heads` heads; the levels between have `blocks` residual blocks on each side, the full resolution has
    them on the way up alone. Skips are added, not concatenated. Raises InputError where the shape cannot be halved.
    """

    frequencies: Tensor

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        *,
        channels: Positives = [24, 64, 128],  # noqa: B006 (never written to)
        blocks: Positive = 1,
        heads: Positive = 2,
        embedding: Positive = 128,
    ) -> None:
        super().__init__()
        check_shape(shape, sizes, channels, heads)
        self.register_buffer("frequencies", time_frequencies(FREQUENCIES), persistent=False)
        self.time_1, self.time_2 = linear(2 * FREQUENCIES, embedding, 1.4), linear(embedding, embedding, 1.4)
        self.condition = ConditionEmbedding(sizes, embedding)
        top, lowest = channels[0], channels[-1]

        def group(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, width, embedding) for _ in range(blocks))

        self.enter = conv(shape[0], top)
        self.downsample = nn.ModuleList(conv(a, b, stride=2) for a, b in itertools.pairwise(channels))
        self.down = nn.ModuleList(group(width) for width in channels[1:-1])
        self.attention = SelfAttention(lowest, heads)
        self.lowest = group(lowest)
        self.upsample = nn.ModuleList(conv(b, 4 * a, 1) for a, b in itertools.pairwise(channels))
        self.up = nn.ModuleList(group(width) for width in channels[:-1])
        self.norm = ModulatedNorm(top, embedding)
        self.leave = conv(top, shape[0], gain=0.05)

    def forward(self, x: Tensor, t: Tensor, **cond: Tensor) -> Tensor:
        """Return a prediction of x's shape. A text's tokens are ignored."""
        embedding = self._embed(t, **cond)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for level, downsample in enumerate(self.downsample):
            h = downsample(silu(h) if level == 0 else h)
            if level < len(self.down):
                for block in self.down[level]:  # type: ignore[attr-defined]
                    h = block(h, embedding)
                skips.append(h)
        h = self.attention(h)
        for block in self.lowest:
            h = block(h, embedding)
        for level in reversed(range(len(self.up))):
            h = skips[level] + pixel_shuffle(self.upsample[level](h), 2)
            for block in self.up[level]:  # type: ignore[attr-defined]
                h = block(h, embedding)
        return self.leave(silu(self.norm(h, embedding)))

    def _embed(self, t: Tensor, **cond: Tensor) -> Tensor:
        """The embedding [B, E] of time and condition."""
        time = silu(self.time_2(silu(self.time_1(waves(t, self.frequencies)))))
        return time + self.condition(time, **cond)


def check_shape(shape: Sequence[int], sizes: Mapping[str, int], channels: Sequence[int], heads: int) -> None:
    """Raise InputError where the network cannot be built for data of this shape and condition."""
    if len(shape) != 3:
        raise InputError(
            f"backbone.name is 'light-unet', but the data have shape {list(shape)}, not [C, H, W]; use mlp"
        )
    if "low" in sizes:
        raise InputError("backbone.name is 'light-unet', which takes no smaller image; use unet")
    if len(channels) < 2:
        raise InputError(
            f"backbone.channels is {list(channels)}: it must have at least 2 levels, such as [24, 64, 128]"
        )
    halvings = 2 ** (len(channels) - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise InputError(
            f"backbone.channels has {len(channels)} levels, so height and width must divide by {halvings}, but the "
            f"images are {shape[1]} × {shape[2]}; use fewer levels or another size"
        )
    if channels[-1] % heads:
        raise InputError(f"backbone.heads is {heads}: it must divide the last of backbone.channels, {channels[-1]}")
