"""A residual multilayer perceptron: for points, such as the toy presets."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn
from torch.nn.functional import silu

from tdpm_cli.config.types import Natural, Positive
from tdpm_cli.models.layers import time_frequencies, waves
from tdpm_cli.runtime.errors import InputError

__all__ = ["MLP"]

FREQUENCIES = 32  # of the time embedding


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
        self.register_buffer("frequencies", time_frequencies(FREQUENCIES), persistent=False)
        self.enter = nn.Linear(size, width)
        self.time = nn.Linear(2 * FREQUENCIES, width)
        self.label = nn.Embedding(sizes["label"], width) if "label" in sizes else None
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.SiLU(), nn.Linear(2 * width, width))
            for _ in range(blocks)
        )  # fmt: skip
        self.leave = nn.Linear(width, size)

    def forward(self, x: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """Return a prediction [B, *shape]."""
        h = self.enter(x.flatten(1)) + self.time(waves(t, self.frequencies))
        if self.label is not None and label is not None:
            h = h + self.label(label)
        for block in self.blocks:
            h = h + block(h)
        return self.leave(silu(h)).view_as(x)
