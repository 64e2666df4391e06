"""The residual discriminator of StyleGAN2: for images. Karras et al. 2020a, appendix B.

Every operation is differentiable twice, as R1 needs.
"""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tdpm_cli.config.types import Natural, Positive
from tdpm_cli.models.layers import Conv, Linear, activate, with_minibatch_std
from tdpm_cli.runtime.errors import InputError

__all__ = ["ResNet"]


class ResNet(nn.Module):
    """x [B, C, H, W], with labels [B] or pooled texts [B, D] → logits [B].

    At height h it has min(`channel_base` / h, `channel_max`) channels; blocks halve the image until its
    longer side is at most 4. `minibatch_std` is the size of the groups whose spread becomes one more channel (0 = off).
    A label or a text enters by projection (Miyato and Koyama 2018); a smaller image `low` is enlarged and joins x.
    """

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        *,
        channel_base: Positive = 16384,
        channel_max: Positive = 512,
        minibatch_std: Natural = 4,
    ) -> None:
        super().__init__()
        if len(shape) != 3:
            raise InputError(
                f"discriminator.name is 'resnet', but the data have shape {list(shape)}, not [C, H, W]; use mlp"
            )
        c_in, height, width = shape

        def channels(height: int) -> int:
            return max(min(channel_base // height, channel_max), 1)

        self.enter = Conv(c_in + sizes.get("low", 0), channels(height), 1)
        self.blocks = nn.ModuleList()
        while max(height, width) > 4:
            half = (height + 1) // 2
            self.blocks.append(Block(channels(height), channels(half)))
            height, width = half, (width + 1) // 2
        last = channels(height)
        self.minibatch_std, self.group = minibatch_std, max(minibatch_std, 1)
        self.conv = Conv(last + (minibatch_std > 0), last, 3)
        self.flat = Linear(last * height * width, last)
        self.leave = Linear(last, 1)
        self.label = nn.Embedding(sizes["label"], last) if "label" in sizes else None
        self.pooled = nn.Linear(sizes["pooled"], last) if "pooled" in sizes else None

    def forward(
        self, x: Tensor, label: Tensor | None = None, pooled: Tensor | None = None, low: Tensor | None = None,
        **_: Tensor,
    ) -> Tensor:  # fmt: skip
        """Return logits [B]. Of a text only the pooled vector is used."""
        if low is not None:
            x = torch.cat([x, interpolate(low.to(x.dtype), size=x.shape[2:], mode="bilinear")], 1)
        h = self.enter(x.contiguous(memory_format=torch.channels_last))
        for block in self.blocks:
            h = block(h)
        if self.minibatch_std:
            h = with_minibatch_std(h, self.minibatch_std)
        h = self.conv(h)
        h = activate(self.flat(h.flatten(1)))
        logits = self.leave(h)[:, 0]
        if self.label is not None and label is not None:
            logits = logits + (h * self.label(label)).sum(1) / math.sqrt(h.shape[1])
        if self.pooled is not None and pooled is not None:
            logits = logits + (h * self.pooled(pooled)).sum(1) / math.sqrt(h.shape[1])
        return logits


class Block(nn.Module):
    """Two convolutions, the second of which halves the image, and a blurred and halved skip connection."""

    def __init__(self, c_in: int, c_out: int) -> None:
        super().__init__()
        self.conv_1, self.conv_2 = Conv(c_in, c_in, 3), Conv(c_in, c_out, 3, halve=True)
        self.skip = Conv(c_in, c_out, 1, halve=True, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        h = self.conv_2(self.conv_1(x))
        return torch.add(h * math.sqrt(0.5), self.skip.unscaled(x), alpha=self.skip.gain * math.sqrt(0.5))
