"""The generator of StyleGAN2. Karras et al. 2020a."""

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, interpolate

from tdpm_cli.models.layers import Linear, activate
from tdpm_cli.runtime.errors import InputError


class Generator(nn.Module):
    """G(z), where z holds `latent` numbers and one map of noise for every convolution.

    A mapping network of `layers` turns the latent (and a label or a pooled text) into styles, which scale the
    channels of every convolution. At height h it has min(`channel_base` / h, `channel_max`) channels.
    """

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], latent: int, layers: int, channel_base: int,
        channel_max: int,
    ) -> None:  # fmt: skip
        super().__init__()
        if len(shape) != 3:
            raise InputError(f"prior.name is 'stylegan2', but the data have shape {list(shape)}, not [C, H, W]")
        if "low" in sizes:
            raise InputError(
                "prior.name is 'stylegan2' or 'x0-then-noise', which cannot enlarge images; use shared or copy"
            )
        resolutions = [(int(shape[1]), int(shape[2]))]
        while max(resolutions[0]) > 4:  # halved, rounding up, as the discriminator sees them
            height, width = resolutions[0]
            resolutions.insert(0, ((height + 1) // 2, (width + 1) // 2))
        self.latent = latent
        self.label = nn.Embedding(sizes["label"], latent) if "label" in sizes else None
        self.pooled = Linear(sizes["pooled"], latent) if "pooled" in sizes else None
        embeddings = (self.label is not None) + (self.pooled is not None)
        self.mapping = nn.ModuleList(
            Linear(latent * (1 + embeddings) if k == 0 else latent, latent, rate=0.01) for k in range(layers)
        )
        self.blocks, width = nn.ModuleList(), 0
        for resolution in resolutions:
            channels = max(min(channel_base // resolution[0], channel_max), 1)
            self.blocks.append(Block(width, channels, shape[0], latent, resolution))
            width = channels
        # z = the latent and one map of noise for each convolution, flattened.
        self.maps = [resolution for block, resolution in zip(self.blocks, resolutions, strict=True)
                     for _ in range(block.convolutions)]  # type: ignore[arg-type]  # fmt: skip
        self.z_shape = (latent + sum(math.prod(size) for size in self.maps),)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map z [B, z_shape] to examples [B, *shape]."""
        latent, *noise = z.split([self.latent, *(math.prod(size) for size in self.maps)], 1)
        maps = [flat.view(-1, 1, *size) for flat, size in zip(noise, self.maps, strict=True)]
        style = self._style(latent, **cond)
        x: Tensor | None = None
        image: Tensor | None = None
        for block in self.blocks:
            x, image = block(x, image, style, [maps.pop(0) for _ in range(block.convolutions)])  # type: ignore[arg-type]
        assert image is not None, "there is always a block"
        return image

    def _style(self, latent: Tensor, label: Tensor | None = None, pooled: Tensor | None = None, **_: Tensor) -> Tensor:
        """w [B, latent]."""
        parts = [latent]
        if self.label is not None and label is not None:
            parts.append(self.label(label))
        if self.pooled is not None and pooled is not None:
            parts.append(self.pooled(pooled))
        w = torch.cat([unit(part) for part in parts], 1)
        for layer in self.mapping:
            w = activate(layer(w))
        return w


class Block(nn.Module):
    """One resolution: two styled convolutions, whose image is added to that of the lower resolutions.

    The lowest resolution starts from a learned constant, and has one convolution.
    """

    def __init__(self, c_in: int, c_out: int, colours: int, latent: int, size: tuple[int, int]) -> None:
        super().__init__()
        self.size = size
        self.constant = nn.Parameter(torch.randn(1, c_out, *size)) if c_in == 0 else None
        self.conv_1 = Styled(c_in, c_out, 3, latent) if c_in else None
        self.conv_2 = Styled(c_out, c_out, 3, latent)
        self.convolutions = 2 if c_in else 1
        self.to_image = Modulated(c_out, colours, 1, latent, demodulate=False)
        self.bias = nn.Parameter(torch.zeros(colours, 1, 1))

    def forward(
        self, x: Tensor | None, image: Tensor | None, style: Tensor, noise: list[Tensor]
    ) -> tuple[Tensor, Tensor]:
        if self.constant is not None:
            x = self.constant.expand(style.shape[0], -1, -1, -1)
        else:
            assert x is not None, "only the first block has none"
            assert self.conv_1 is not None, "only the first block has none"
            x = self.conv_1(doubled(x, self.size), style, noise[0])
        x = self.conv_2(x, style, noise[-1])
        added = self.to_image(x, style) + self.bias
        return x, added if image is None else doubled(image, self.size) + added


class Styled(nn.Module):
    """A modulated convolution, noise of learned strength, a bias, and the activation."""

    def __init__(self, c_in: int, c_out: int, size: int, latent: int) -> None:
        super().__init__()
        self.conv = Modulated(c_in, c_out, size, latent)
        self.strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(c_out, 1, 1))

    def forward(self, x: Tensor, style: Tensor, noise: Tensor) -> Tensor:
        return activate(self.conv(x, style) + self.strength * noise + self.bias)


class Modulated(nn.Module):
    """A convolution whose style scales the input channels, with the output normalized to unit variance.

    Karras et al. 2020a, eq. 1 to 3. Activations are scaled instead of weights, which is equivalent and needs no
    separate convolution for each example.
    """

    def __init__(self, c_in: int, c_out: int, size: int, latent: int, demodulate: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, size, size))
        self.style = Linear(latent, c_in, bias=1.0)
        self.gain, self.padding, self.demodulate = 1 / math.sqrt(c_in * size**2), size // 2, demodulate

    def forward(self, x: Tensor, style: Tensor) -> Tensor:
        scale, weight = self.style(style), self.weight * self.gain
        y = conv2d(x * scale[:, :, None, None], weight, padding=self.padding)
        if self.demodulate:
            power = scale.square() @ weight.square().sum((2, 3)).T  # [B, c_out]: Σ (w · s)²
            y = y * (power + 1e-8).rsqrt()[:, :, None, None]
        return y


def doubled(x: Tensor, size: tuple[int, int]) -> Tensor:
    """Enlarge x twice by the filter [1, 3, 3, 1], and crop it to `size`."""
    return interpolate(x, scale_factor=2.0, mode="bilinear")[:, :, : size[0], : size[1]]


def unit(x: Tensor) -> Tensor:
    """Scale each row of x [B, D] to a mean square of 1."""
    return x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt()
