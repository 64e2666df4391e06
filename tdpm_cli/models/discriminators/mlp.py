"""A multilayer perceptron: for points, such as the toy presets."""

import math
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.config.types import Positive
from tdpm_cli.runtime.errors import InputError

__all__ = ["MLP"]


class MLP(nn.Module):
    """x [B, *shape] and labels [B] → logits [B]; `layers` hidden layers of `width`.

    A label enters by projection (Miyato and Koyama 2018).
    """

    group = 1

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], *, width: Positive = 128, layers: Positive = 3
    ) -> None:
        super().__init__()
        if unknown := sizes.keys() - {"label"}:
            raise InputError(
                f"discriminator.name is 'mlp', which accepts labels only, not {', '.join(sorted(unknown))}"
            )
        body: list[nn.Module] = [nn.Flatten(), nn.Linear(math.prod(shape), width), nn.SiLU()]
        for _ in range(layers - 1):
            body += [nn.Linear(width, width), nn.SiLU()]
        self.body, self.leave = nn.Sequential(*body), nn.Linear(width, 1)
        self.label = nn.Embedding(sizes["label"], width) if "label" in sizes else None

    def forward(self, x: Tensor, label: Tensor | None = None) -> Tensor:
        """Return logits [B]."""
        h = self.body(x)
        logits = self.leave(h)[:, 0]
        if self.label is not None and label is not None:
            logits = logits + (h * self.label(label)).sum(1) / math.sqrt(h.shape[1])
        return logits
