"""Points: vectors of real numbers, divided by a scale."""

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config.types import Positive, PositiveFloat

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Points"]

BINS, SIDE = 128, 256  # of the histogram, and pixels of its image
PAPER, INK = (255.0, 255.0, 255.0), (24.0, 40.0, 110.0)  # colours of no and of the highest density


class Points:
    """raw float32 [B, dim] in the data's units ↔ x [B, dim] = raw / `scale`."""

    bounds = None

    def __init__(self, *, dim: Positive = 2, scale: PositiveFloat = 1.0) -> None:
        self.shape = self.raw_shape = (dim,)
        self.scale = scale

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Divide by the scale."""
        return raw.float() / self.scale

    def decode(self, x: Tensor) -> Tensor:
        """Multiply by the scale."""
        return x.float() * self.scale

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """Draw the density of the first two coordinates over ±3 scales; darker is denser."""
        from PIL import Image

        first = raw[:, :2].cpu().numpy() if raw.shape[1] > 1 else np.repeat(raw.cpu().numpy(), 2, 1)
        edge = 3 * self.scale
        count, *_ = np.histogram2d(-first[:, 1], first[:, 0], bins=BINS, range=[[-edge, edge]] * 2)
        density = np.sqrt(count / max(np.quantile(count[count > 0], 0.99), 1) if count.any() else count)
        ink = torch.from_numpy(density).clamp(0, 1)[..., None]
        pixels = ((1 - ink) * torch.tensor(PAPER) + ink * torch.tensor(INK)).round().byte().numpy()
        return Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.NEAREST)
