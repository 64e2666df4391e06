"""The U-Net of DDPM, with the options of ADM: for images and latents. Ho et al. 2020, appendix B."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d, interpolate, pad, silu
from torch.utils.checkpoint import checkpoint

from tdpm_cli.config.types import Positive, Positives, Probability
from tdpm_cli.models.cpu_attention import attention
from tdpm_cli.models.cpu_group_norm import GroupNorm
from tdpm_cli.models.layers import waves
from tdpm_cli.runtime.errors import InputError

__all__ = ["UNet"]

Resize = Literal["same", "half", "double"]
Norm = Callable[[int], GroupNorm]


@dataclass(frozen=True)
class Details:
    """Details in which published U-Nets differ: with the right ones, their weights compute the same here."""

    eps: float  # of the norms
    last: int  # the n frequencies of the time fall to 10000^-((n - 1) / (n - last))
    padding: tuple[int, int, int, int]  # before a strided convolution: left, right, top, bottom


CONVENTIONS = {
    "ddpm": Details(1e-6, 1, (0, 1, 0, 1)),  # Ho et al. 2020, and its successors
    "adm": Details(1e-5, 0, (1, 1, 1, 1)),  # Dhariwal and Nichol 2021, and diffusers' defaults
}
Layer = TypeVar("Layer", nn.Conv2d, nn.Linear)


class UNet(nn.Module):
    """x [B, C, H, W], t [B] → [B, C, H, W], optionally with conditions.

    `label` int [B] and `pooled` [B, D] add to the time embedding. Every self-attention is followed by attention to
    `context` [B, L, D]. `low` [B, C', h, w] is enlarged and joins x. Levels have `channels` · `mult` channels, each at
    half the size of the one before; `attention` lists the image heights with attention, of `heads` heads or of heads
    with `head_channels` channels. Two options are ADM's (Dhariwal and Nichol 2021): with `scale_shift` the embedding
    scales and shifts the second norm, and with `resample: block` residual blocks halve and double the image.
    For weights of other projects: `conventions` names whose details of norms, time and padding to follow, `groups` sets
    the groups of every norm if the usual rule (see `group_norm`) differs, and `first_time` is their number for t = 1.
    `checkpointing` trades time for memory in training. Raises InputError for a shape that cannot be halved.
    """

    checkpointing = False

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        *,
        channels: Positive = 128,
        mult: Positives = [1, 2, 2, 2],  # noqa: B006 (never written to)
        blocks: Positive = 2,
        attention: list[Positive] = [16],  # noqa: B006
        heads: Positive = 1,
        head_channels: Positive | None = None,
        scale_shift: bool = False,
        resample: Literal["conv", "block"] = "conv",
        dropout: Probability = 0.0,
        conventions: Literal["ddpm", "adm"] = "ddpm",
        groups: Positive | None = None,
        first_time: Literal[0, 1] = 1,
    ) -> None:
        super().__init__()
        _check_shape(shape, mult, attention)
        self.first_time = first_time
        embedding, details = 4 * channels, CONVENTIONS[conventions]
        norm: Norm = partial(group_norm, groups=groups, eps=details.eps)
        options = BlockOptions(embedding, sizes.get("context"), dropout, heads, head_channels, scale_shift, norm)

        self.time = TimeEmbedding(channels, embedding, details.last)
        self.label = nn.Embedding(sizes["label"], embedding) if "label" in sizes else None
        self.pooled = nn.Linear(sizes["pooled"], embedding) if "pooled" in sizes else None

        def halve(width: int) -> nn.Module:
            if resample == "conv":
                return Downsample(width, details.padding)
            return Block(width, width, options, resized="half")

        def double(width: int) -> nn.Module:
            return Upsample(width) if resample == "conv" else Block(width, width, options, resized="double")

        self.enter = nn.Conv2d(shape[0] + sizes.get("low", 0), channels, 3, padding=1)
        self.down, widths, width, height = nn.ModuleList(), [channels], channels, shape[1]
        for level, factor in enumerate(mult):
            for _ in range(blocks):
                self.down.append(Block(width, channels * factor, options, height in attention))
                width = channels * factor
                widths.append(width)
            if level < len(mult) - 1:
                self.down.append(halve(width))
                widths.append(width)
                height //= 2
        self.middle = nn.ModuleList([Block(width, width, options, True), Block(width, width, options)])
        self.up = nn.ModuleList()
        for level, factor in reversed(list(enumerate(mult))):
            for _ in range(blocks + 1):
                self.up.append(Block(width + widths.pop(), channels * factor, options, height in attention))
                width = channels * factor
            if level > 0:
                self.up.append(double(width))
                height *= 2
        self.norm = norm(width)
        self.leave = zeroed(nn.Conv2d(width, shape[0], 3, padding=1))

    def forward(
        self,
        x: Tensor,
        t: Tensor,
        label: Tensor | None = None,
        pooled: Tensor | None = None,
        context: Tensor | None = None,
        low: Tensor | None = None,
    ) -> Tensor:
        """Return a prediction [B, C, H, W]."""
        embedding = self.time(t - 1 + self.first_time)
        if self.label is not None and label is not None:
            embedding = embedding + self.label(label)
        if self.pooled is not None and pooled is not None:
            embedding = embedding + self.pooled(pooled)
        embedding = silu(embedding)

        if low is not None:
            x = torch.cat([x, interpolate(low.to(x.dtype), size=x.shape[2:], mode="bilinear")], 1)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        skips = [h]
        for layer in self.down:
            h = self._run(layer, h, embedding, context)
            skips.append(h)
        for layer in self.middle:
            h = self._run(layer, h, embedding, context)
        for layer in self.up:
            if isinstance(layer, Block) and layer.resized == "same":
                h = torch.cat([h, skips.pop()], 1)
            h = self._run(layer, h, embedding, context)
        return self.leave(silu(self.norm(h)))

    def _run(self, layer: nn.Module, h: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        if self.checkpointing and torch.is_grad_enabled():
            output: Tensor = checkpoint(layer, h, embedding, context, use_reentrant=False)
            return output
        return layer(h, embedding, context)


def _check_shape(shape: Sequence[int], mult: Sequence[int], attention: Sequence[int]) -> None:
    """Raise InputError if the shape does not fit the levels and heights of a U-Net."""
    if len(shape) != 3:
        raise InputError(f"backbone.name is 'unet', but the data have shape {list(shape)}, not [C, H, W]; use mlp")
    halvings = 2 ** (len(mult) - 1)
    if shape[1] % halvings or shape[2] % halvings:
        raise InputError(
            f"backbone.mult has {len(mult)} levels, so height and width must divide by {halvings}, "
            f"but the images are {shape[1]} × {shape[2]}; use fewer levels or another size"
        )
    heights = [shape[1] >> level for level in range(len(mult))]
    if not set(attention) <= set(heights):
        raise InputError(
            f"backbone.attention is {list(attention)}, but its levels have heights {heights}: choose among these"
        )


class TimeEmbedding(nn.Module):
    """t [B] → [B, size]: sines and cosines of `channels` / 2 frequencies from 1 down to about 1/10000, then two
    layers."""

    frequencies: Tensor

    def __init__(self, channels: int, size: int, last: int = 1) -> None:
        super().__init__()
        exponent = torch.arange(channels // 2) / max(channels // 2 - last, 1)
        self.register_buffer("frequencies", torch.exp(-math.log(10_000) * exponent), persistent=False)
        self.layers = nn.Sequential(nn.Linear(2 * (channels // 2), size), nn.SiLU(), nn.Linear(size, size))

    def forward(self, t: Tensor) -> Tensor:
        return self.layers(waves(t.float(), self.frequencies))


@dataclass(frozen=True)
class BlockOptions:
    """What all blocks of a U-Net have in common."""

    embedding: int
    context: int | None  # size of the context's vectors
    dropout: float
    heads: int
    head_channels: int | None
    scale_shift: bool
    norm: Norm

    def heads_of(self, channels: int) -> int:
        """Return the number of attention heads over `channels`."""
        if self.head_channels and channels >= self.head_channels:
            return channels // self.head_channels
        return self.heads


class Block(nn.Module):
    """A residual block, followed by attention to itself and to the context if `attend`.

    With `resized` "half", both branches average pixels; with "double", they repeat them.
    """

    def __init__(
        self, c_in: int, c_out: int, options: BlockOptions, attend: bool = False, resized: Resize = "same"
    ) -> None:
        super().__init__()
        self.scale_shift, self.resized = options.scale_shift, resized
        norm, heads = options.norm, options.heads_of(c_out)
        self.norm_1, self.conv_1 = norm(c_in), nn.Conv2d(c_in, c_out, 3, padding=1)
        self.embed = nn.Linear(options.embedding, 2 * c_out if options.scale_shift else c_out)
        self.norm_2, self.dropout = norm(c_out), nn.Dropout(options.dropout)
        self.conv_2 = zeroed(nn.Conv2d(c_out, c_out, 3, padding=1))
        self.skip = nn.Conv2d(c_in, c_out, 1) if c_in != c_out else nn.Identity()
        self.attend = Attention(c_out, heads, norm) if attend else None
        self.attend_context = Attention(c_out, heads, norm, options.context) if attend and options.context else None

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        h = self.conv_1(resize(silu(self.norm_1(x)), self.resized))
        embedded = self.embed(embedding)[:, :, None, None]
        if self.scale_shift:
            scale, shift = embedded.chunk(2, 1)
            h = self.norm_2(h) * (1 + scale) + shift
        else:
            h = self.norm_2(h + embedded)
        h = self.skip(resize(x, self.resized)) + self.conv_2(self.dropout(silu(h)))
        if self.attend is not None:
            h = self.attend(h)
        if self.attend_context is not None and context is not None:
            h = self.attend_context(h, context)
        return h


def resize(x: Tensor, to: Resize) -> Tensor:
    """Halve x by averages, double it by repetition, or return it unchanged."""
    if to == "half":
        return avg_pool2d(x, 2)
    return interpolate(x, scale_factor=2.0, mode="nearest") if to == "double" else x


class Attention(nn.Module):
    """Residual attention of x [B, C, H, W] to itself, or to a context [B, L, D] if `context`, its D, is set."""

    def __init__(self, channels: int, heads: int, norm: Norm, context: int | None = None) -> None:
        super().__init__()
        if channels % heads:
            raise InputError(f"backbone.heads is {heads}, but must divide the {channels} channels it attends over")
        self.heads, self.norm = heads, norm(channels)
        self.query = nn.Linear(channels, channels)
        self.key_value = nn.Linear(context or channels, 2 * channels)
        self.leave = zeroed(nn.Linear(channels, channels))

    def forward(self, x: Tensor, context: Tensor | None = None) -> Tensor:
        tokens = self.norm(x).flatten(2).transpose(1, 2)
        query = self.query(tokens)
        key, value = self.key_value(tokens if context is None else context).chunk(2, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in (query, key, value))
        attended = attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.leave(attended).transpose(1, 2).unflatten(2, x.shape[2:])


class Downsample(nn.Module):
    """Halve height and width by a strided convolution."""

    def __init__(self, channels: int, padding: tuple[int, int, int, int]) -> None:
        super().__init__()
        self.conv, self.padding = nn.Conv2d(channels, channels, 3, stride=2), padding

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        return self.conv(pad(x, self.padding))


class Upsample(nn.Module):
    """Double height and width: nearest neighbour, then a convolution."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(channels, channels, 3, padding=1)

    def forward(self, x: Tensor, embedding: Tensor, context: Tensor | None) -> Tensor:
        return self.conv(interpolate(x, scale_factor=2.0, mode="nearest"))


def group_norm(channels: int, groups: int | None, eps: float) -> GroupNorm:
    """Return a norm of `groups`, by default 32 (Ho et al. 2020), or fewer so that each has at least 4 channels."""
    if groups and channels % groups:
        raise InputError(f"backbone.groups is {groups}, but must divide the {channels} channels of a norm")
    usual = next(g for g in (32, 16, 8, 4, 2, 1) if g == 1 or (channels % g == 0 and channels // g >= 4))
    return GroupNorm(groups or usual, channels, eps=eps)


def zeroed(layer: Layer) -> Layer:
    """Set weights and bias of a layer to 0, so that its residual block starts as the identity."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None
    nn.init.zeros_(layer.bias)
    return layer
