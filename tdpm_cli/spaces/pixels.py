"""Pixels: images as they are, scaled to [-1, 1]."""

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

MOST_VALUES = 3 << 26  # of 8192×8192 pixels in colour


class Pixels:
    """raw uint8 [B, C, H, W] ↔ x float32 [B, C, H, W] in [-1, 1]; `shape` is [C, H, W], C 1 or 3."""

    bounds = (-1.0, 1.0)

    def __init__(self, *, shape: Annotated[list[Positive], Len(3, 3)]) -> None:
        if shape[0] not in (1, 3):
            raise InputError(f"space.shape is {shape}: it must be [C, H, W] with C = 1 (grey) or 3 (RGB)")
        if math.prod(shape) > MOST_VALUES:
            raise InputError(f"space.shape is {shape}: images of at most {MOST_VALUES:,} values are accepted")
        self.shape = self.raw_shape = tuple(shape)

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """0..255 → [-1, 1]."""
        return raw.float() / 127.5 - 1

    def decode(self, x: Tensor) -> Tensor:
        """[-1, 1] → the nearest of 0..255."""
        return (x.float() * 127.5 + 127.5).round().clamp(0, 255).byte()

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """The first 64 images in rows of 8, or of `columns`, enlarged to be seen."""
        from PIL import Image

        raw = raw[:64].cpu().expand(-1, 3, -1, -1)
        n, _, height, width = raw.shape
        columns = columns or min(math.isqrt(n - 1) + 1, 8)
        rows = -(-n // columns)
        sheet = torch.full((rows * (height + 2) + 2, columns * (width + 2) + 2, 3), 255, dtype=torch.uint8)
        for k, image in enumerate(raw):
            y, x = 2 + k // columns * (height + 2), 2 + k % columns * (width + 2)
            sheet[y : y + height, x : x + width] = image.permute(1, 2, 0)
        zoom = max(256 // max(sheet.shape[:2]), 1) if height >= 32 else max(400 // max(sheet.shape[:2]), 1)
        return Image.fromarray(sheet.numpy()).resize(
            (sheet.shape[1] * zoom, sheet.shape[0] * zoom), Image.Resampling.NEAREST
        )
