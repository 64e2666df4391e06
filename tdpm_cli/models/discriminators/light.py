"""A light discriminator without norms: a pixel-unshuffle stem and strided residual blocks, for 28 to 64 pixels."""

import itertools
import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, leaky_relu, pixel_unshuffle

from tdpm_cli.config.types import Natural, Positives
from tdpm_cli.models.discriminators.resnet import with_minibatch_std
from tdpm_cli.models.light import ConditionEmbedding, conv, linear
from tdpm_cli.runtime.errors import InputError

__all__ = ["LightDiscriminator"]

SLOPE = 0.2  # of the leaky ReLU


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
        check_shape("discriminator", shape, sizes)
        height, width = shape[1] // 2, shape[2] // 2
        self.enter = conv(4 * shape[0], channels[0])
        self.blocks = nn.ModuleList(Block(a, b) for a, b in itertools.pairwise(channels))
        for _ in self.blocks:
            height, width = (height + 1) // 2, (width + 1) // 2
        last = channels[-1]
        self.group = minibatch_std
        self.conv = conv(last + (minibatch_std > 0), last, gain=1.4)
        self.flat = linear(last * height * width, last, 1.4)
        self.leave = linear(last, 1)
        self.condition = ConditionEmbedding(sizes, last)

    def forward(self, x: Tensor, **cond: Tensor) -> Tensor:
        """Return logits [B]. A text's tokens are ignored."""
        h = self.enter(pixel_unshuffle(x, 2).contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        if self.group:
            h = with_minibatch_std(h, self.group)
        h = leaky_relu(self.conv(leaky_relu(h, SLOPE)), SLOPE)
        h = leaky_relu(self.flat(h.flatten(1)), SLOPE)
        projection = (h * self.condition(h, **cond)).sum(1) / math.sqrt(h.shape[1])
        return self.leave(h)[:, 0] + projection


class Block(nn.Module):
    """Two convolutions, the second with stride 2, beside an averaged and halved skip."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = conv(c_in, c_in, gain=1.4), conv(c_in, c_out, stride=2)
        self.skip = conv(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_2(leaky_relu(self.conv_1(leaky_relu(x, SLOPE)), SLOPE))
        return h + self.skip(avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))


def check_shape(kind: str, shape: Sequence[int], sizes: Mapping[str, int]) -> None:
    """Raise InputError where the network cannot be built for data of this shape and condition."""
    if len(shape) != 3:
        raise InputError(f"{kind}.name is 'light', but the data have shape {list(shape)}, not [C, H, W]; use mlp")
    if shape[1] % 2 or shape[2] % 2 or min(shape[1:]) < 8:
        raise InputError(f"{kind}.name is 'light', but the images are {shape[1]} × {shape[2]}: height and width "
                         "must be even and at least 8; use resnet")  # fmt: skip
    if "low" in sizes:
        raise InputError(f"{kind}.name is 'light', which takes no smaller image; use resnet")
