"""Latents of an autoencoder (Rombach et al. 2022): images where they are stored, small maps where they are learned."""

import math
from functools import cached_property
from typing import TYPE_CHECKING, Annotated

import torch
from annotated_types import Len
from torch import Tensor

from tdpm_cli.engine.ranges import Positive, PositiveFloat
from tdpm_cli.errors import InputError
from tdpm_cli.parts.autoencoders import Autoencoder
from tdpm_cli.parts.spaces.pixels import Pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Latents"]


class Latents:
    """raw uint8 [B, C, H, W] → x float32 [B, `channels`, H / `factor`, W / `factor`] → raw, by an autoencoder.

    Or from float32 [B, 2 · `channels`, ...], the mean and standard deviation that `tdpm data encode` kept. `shape` is
    [C, H, W] of the images; `autoencoder` a folder, or a name of the hub. `scale` multiplies latents, to about unit
    variance; None is the autoencoder's own. `slices` images are decoded at a time.
    """

    bounds = None

    def __init__(
        self, *, shape: Annotated[list[Positive], Len(3, 3)], autoencoder: str, channels: Positive = 4,
        factor: Positive = 8, scale: PositiveFloat | None = None, slices: Positive = 16,
    ) -> None:  # fmt: skip
        self._pixels = Pixels(shape=shape)
        self.raw_shape = self._pixels.raw_shape
        if any(side % factor for side in shape[1:]):
            raise InputError(f"space.shape is {shape}: its height and width must divide by space.factor, {factor}")
        self.shape = (channels, shape[1] // factor, shape[2] // factor)
        self.source, self.factor, self.scale, self.slices = autoencoder, factor, scale, slices

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents; without a generator their mean."""
        autoencoder = self.autoencoder
        if raw.dtype == torch.uint8:
            mean, std = autoencoder.encode(self._pixels.encode(raw))
        else:
            mean, std = raw.float().chunk(2, 1)
        if generator is not None:
            mean = mean + std * torch.randn(std.shape, generator=generator, device=std.device)
        return (mean - autoencoder.shift) * (self.scale or autoencoder.scale)

    def decode(self, x: Tensor) -> Tensor:
        """Decode to images."""
        autoencoder = self.autoencoder
        latents = x / (self.scale or autoencoder.scale) + autoencoder.shift
        return self._pixels.decode(autoencoder.decode(latents, self.slices))

    def picture(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """As of pixels."""
        return self._pixels.picture(raw, columns)

    @cached_property
    def autoencoder(self) -> Autoencoder:
        """Loaded when it is first needed. Raises InputError for one of other latents than the space's."""
        found = Autoencoder(self.source)
        if (found.channels, found.factor) != (self.shape[0], self.factor):
            raise InputError(
                f"space.channels is {self.shape[0]} and space.factor {self.factor}, but {self.source} makes "
                f"{found.channels} channels at 1/{found.factor} of the size; set them to its own"
            )
        if self.scale and not math.isclose(self.scale, found.scale, rel_tol=0.01) and found.scale != 1:
            raise InputError(f"space.scale is {self.scale:g}, but {self.source} states {found.scale:g}; leave it out")
        return found
