"""A residual multilayer perceptron: for points, such as the toy presets."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

from tdpm_cli.config.types import Natural, Positive
from tdpm_cli.runtime.errors import InputError

__all__ = ["MLP"]


class MLP(nn.Module):
    """x [B, *shape], t [B] and labels [B] → [B, *shape]; `blocks` residual blocks of `width`."""

    frequencies: Tensor

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], *, width: Positive = 128, blocks: Natural = 3
    ) -> None:
        super().__init__()
        if unknown := sizes.keys() - {"label"}:
            raise InputError(f"backbone.name is 'mlp', which accepts labels only, not {', '.join(sorted(unknown))}")
        size = math.prod(shape)
        # t enters through sines and cosines of 32 frequencies, from one period over the usual 1000 steps of a schedule.
        self.register_buffer("frequencies", 2 * math.pi / 1000 * 2 ** torch.linspace(0, 8, 32), persistent=False)
        self.enter = nn.Linear(size, width)
        self.time = nn.Linear(64, width)
        self.label = nn.Embedding(sizes["label"], width) if "label" in sizes else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )  # fmt: skip
        self.leave = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return a prediction [B, *shape]."""
        angle = t[:, None] * self.frequencies
        h = self.enter(x.flatten(1)) + self.time(torch.cat([angle.sin(), angle.cos()], 1))
        if self.label is not None and label is not None:
            h = h + self.label(label)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(silu(h)).view_as(x)
