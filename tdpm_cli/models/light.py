"""Layers of the light networks, which learn in minutes on a CPU: RMS norm, no group norm, additive skips.

RMS norm (Zhang and Sennrich 2019) needs no statistics over pixels, so that it costs little in bf16 and channels last.
Weights start normal with variance gain² / fan-in (He et al. 2015).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, leaky_relu, silu

from tdpm_cli.models.cpu_attention import attention
from tdpm_cli.runtime.errors import InputError

Activation = Callable[[Tensor], Tensor]
Layer = TypeVar("Layer", nn.Conv2d, nn.ConvTranspose2d, nn.Linear)
EPS = 1e-4  # of the norm; large enough for bf16
SLOPE = 0.2  # of the leaky ReLU of discriminators and encoders


def conv(c_in: int, c_out: int, size: int = 3, *, stride: int = 1, gain: float = 1.0, bias: bool = True) -> nn.Conv2d:
    """A convolution that keeps the image's size, or halves it with stride 2."""
    layer = nn.Conv2d(c_in, c_out, size, stride, size // 2, bias=bias)
    return start(layer, c_in * size**2, gain)


def linear(c_in: int, c_out: int, gain: float = 1.0) -> nn.Linear:
    """A linear layer."""
    return start(nn.Linear(c_in, c_out), c_in, gain)


def start(layer: Layer, fan_in: int, gain: float) -> Layer:
    """Set a layer's weights to normal numbers of variance gain² / fan_in, and its bias to 0."""
    nn.init.normal_(layer.weight, 0.0, gain / math.sqrt(fan_in))
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def rms_norm(x: Tensor) -> Tensor:
    """x [B, C, H, W] with a mean square of 1 over the channels of each pixel."""
    return x * torch.rsqrt(x.square().mean(1, keepdim=True) + EPS)


class ModulatedNorm(nn.Module):
    """RMS norm whose channels an embedding [B, E] scales and shifts (Perez et al. 2018)."""

    def __init__(self, channels: int, embedding: int) -> None:
        super().__init__()
        self.modulation = linear(embedding, 2 * channels, 0.3)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.modulation(embedding)[:, :, None, None].to(x.dtype).chunk(2, 1)
        return torch.addcmul(shift, rms_norm(x), 1 + scale)


class ResidualBlock(nn.Module):
    """x [B, C_in, H, W] -> [B, C_out, H, W], or twice the size with `upsample`."""

    def __init__(
        self, c_in: int, c_out: int, embedding: int, activation: Activation = silu, upsample: bool = False
    ) -> None:
        super().__init__()
        self.activation, self.upsample = activation, upsample
        self.norm_1, self.norm_2 = ModulatedNorm(c_in, embedding), ModulatedNorm(c_out, embedding)
        if upsample:
            self.conv_1: nn.Module = start(nn.ConvTranspose2d(c_in, c_out, 4, 2, 1), 4 * c_in, 1.4)
        else:
            self.conv_1 = conv(c_in, c_out, gain=1.4)
        self.conv_2 = conv(c_out, c_out, gain=0.5)
        self.skip = conv(c_in, c_out, 1, bias=False) if c_in != c_out else nn.Identity()

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv_1(self.activation(self.norm_1(x, embedding)))
        h = self.conv_2(self.activation(self.norm_2(h, embedding)))
        x = self.skip(x)
        return h + (interpolate(x, scale_factor=2.0, mode="nearest") if self.upsample else x)


class HalvingBlock(nn.Module):
    """Two convolutions, the second with stride 2, beside an averaged and halved skip."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = conv(c_in, c_in, gain=1.4), conv(c_in, c_out, stride=2)
        self.skip = conv(c_in, c_out, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_2(leaky_relu(self.conv_1(leaky_relu(x, SLOPE)), SLOPE))
        return h + self.skip(avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False))


class SelfAttention(nn.Module):
    """Attention of every pixel to every pixel, added to x [B, C, H, W] (Vaswani et al. 2017, eq. 1)."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.enter, self.leave = conv(channels, 3 * channels, 1), conv(channels, channels, 1, gain=0.3)

    def forward(self, x: Tensor) -> Tensor:
        size, channels, height, width = x.shape
        tokens = self.enter(rms_norm(x)).flatten(2).view(size, 3, self.heads, channels // self.heads, height * width)
        query, key, value = tokens.transpose(-1, -2).unbind(1)
        out = attention(query, key, value)
        return x + self.leave(out.transpose(-1, -2).reshape(size, channels, height, width))


class ConditionEmbedding(nn.Module):
    """Embeds labels [B] or pooled texts [B, D] as vectors [B, `width`]; without either they are zeros."""

    def __init__(self, sizes: Mapping[str, int], width: int) -> None:
        super().__init__()
        self.label = nn.Embedding(sizes["label"], width) if "label" in sizes else None
        self.pooled = linear(sizes["pooled"], width) if "pooled" in sizes else None

    def forward(self, like: Tensor, label: Tensor | None = None, pooled: Tensor | None = None, **_: Tensor) -> Tensor:
        """Return the sum of the embeddings, in the shape and type of `like` [B, width]."""
        total = torch.zeros_like(like)
        if self.label is not None and label is not None:
            total = total + self.label(label).to(like.dtype)
        if self.pooled is not None and pooled is not None:
            total = total + self.pooled(pooled).to(like.dtype)
        return total


def check_images(kind: str, shape: Sequence[int], sizes: Mapping[str, int]) -> None:
    """Raise InputError where the network cannot be built for data of this shape and condition."""
    if len(shape) != 3:
        raise InputError(f"{kind}.name is 'light', but the data have shape {list(shape)}, not [C, H, W]; use mlp")
    if shape[1] % 2 or shape[2] % 2 or min(shape[1:]) < 8:
        raise InputError(f"{kind}.name is 'light', but the images are {shape[1]} × {shape[2]}: height and width "
                         "must be even and at least 8; use resnet")  # fmt: skip
    if "low" in sizes:
        raise InputError(f"{kind}.name is 'light', which takes no smaller image; use resnet")
