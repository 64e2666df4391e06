"""Images as they are stored, scaled to [-1, 1]."""

import math
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Len
from torch import Tensor

from tdpm_cli.config.types import Positive
from tdpm_cli.runtime.errors import InputError

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Pixels"]

MAX_VALUES = 3 << 26  # of an image: 8192×8192 pixels in colour
GRID_IMAGES = 64  # that a grid shows
GRID_SIDE, SMALL_GRID_SIDE = 256, 400  # pixels that a grid of large or small images is enlarged to
SMALL_SIDE = 32  # height below which images are small


class Pixels:
    """raw uint8 [B, C, H, W] ↔ x float32 [B, C, H, W] in [-1, 1]; `shape` is [C, H, W], with C 1 or 3."""

    bounds = (-1.0, 1.0)

    def __init__(self, *, shape: Annotated[list[Positive], Len(3, 3)]) -> None:
        if shape[0] not in (1, 3):
            raise InputError(f"space.shape is {shape}; expected [C, H, W] with C = 1 (grey) or 3 (RGB)")
        if math.prod(shape) > MAX_VALUES:
            raise InputError(f"space.shape is {shape}; images of at most {MAX_VALUES:,} values are accepted")
        self.shape = self.raw_shape = tuple(shape)

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Scale 0..255 to [-1, 1]."""
        return raw.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        """Scale [-1, 1] to 0..255, and round."""
        return (x.float() * 127.5 + 127.5).round().clamp(0, 255).byte()

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """Draw the first 64 images in a grid, enlarged without smoothing."""
        from PIL.Image import Resampling

        from tdpm_cli.runtime.grids import image_grid

        sheet = image_grid(raw[:GRID_IMAGES], columns, zoom=1)
        side = SMALL_GRID_SIDE if raw.shape[2] < SMALL_SIDE else GRID_SIDE
        zoom = max(side // max(sheet.size), 1)
        return sheet.resize((sheet.width * zoom, sheet.height * zoom), Resampling.NEAREST)
