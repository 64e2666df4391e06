"""The generator of StyleGAN2: a prior apart from the denoiser, quick to sample. Karras et al. 2020a."""

from collections.abc import Mapping, Sequence

from torch import nn

from tdpm_cli.config.types import Positive
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.models.stylegan2 import Generator

__all__ = ["StyleGAN2"]


class StyleGAN2(Generator):
    """x_T = G(z), where z holds `latent` numbers and one map of noise for every convolution.

    A mapping network of `layers` turns the latent (and a label or a pooled text) into styles, which scale the
    channels of every convolution. At height h it has min(`channel_base` / h, `channel_max`) channels.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = False
    learns = True
    shares = False

    def __init__(
        self,
        shape: Sequence[int],
        sizes: Mapping[str, int],
        schedule: Schedule,
        network: nn.Module,
        *,
        latent: Positive = 512,
        layers: Positive = 8,
        channel_base: Positive = 16384,
        channel_max: Positive = 512,
    ) -> None:
        super().__init__(shape, sizes, latent, layers, channel_base, channel_max)

    def start(self, network: nn.Module) -> None:
        """Do nothing: the generator has another architecture."""
