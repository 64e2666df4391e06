"""The sampler as one module, from random numbers to images, which the sampler targets export."""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tdpm_cli import __version__
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.engine.noise import Noise
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import LoadedModel
from tdpm_cli.sampling.settings import nfe, nfe_text, prior_options, reverse_settings
from tdpm_cli.spaces.latents import Latents

Inputs = dict[str, Tensor]


class SamplerModule(nn.Module):
    """{"z": [B, Z], "noise": [B, N, *shape], conditions} → (images, x_0).

    z is all that the prior draws, flat. "noise" is absent if the sampler draws none (N = 0). Images are uint8
    [B, C, H, W], with 3 channels if `rgb`; x_0 is float32 [B, *shape], before rounding. Raises InputError for `rgb`
    with images that are not grey.
    """

    def __init__(self, loaded: LoadedModel, settings: SampleConfig, rgb: bool) -> None:
        super().__init__()
        components = loaded.components
        self.model, self.space, self.condition = components.model, components.space, components.condition
        self.settings, self.rgb, self.prior_name = settings, rgb, components.config.prior.name
        if rgb and self.space.raw_shape[0] != 1:
            raise InputError(
                f"--rgb: the data have shape {list(self.space.raw_shape)}, but it needs grey images; omit it"
            )
        if isinstance(self.space, Latents):
            self.decoder = _decoder(self.space.autoencoder.network)
            self.space.slices = None  # decodes all images together
        self.null = components.condition.null(1)
        self.noise_draws = self._count_noise_draws()

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return images and x_0."""
        cond = dict(inputs)
        z, noise = cond.pop("z"), cond.pop("noise", None)
        noise_source = DrawnNoise([] if noise is None else noise.unbind(1))
        null = {key: value.expand(z.shape[0], *value.shape[1:]) for key, value in self.null.items()}
        x_T = self.model.x_T_of(z.view(-1, *self.model.prior.z_shape), cond, null=null, **prior_options(self.settings))
        reverse = reverse_settings(self.settings, self.space.bounds)
        x_0 = self.model.decode(x_T, noise_source, cond, reverse, null)  # type: ignore[arg-type]
        images = self.space.decode(x_0)
        return (images.expand(-1, 3, -1, -1) if self.rgb else images), x_0

    def inputs(self, n: int, seed: int = 0) -> Inputs:
        """Return the inputs of n samples, drawn as `tdpm sample` draws them."""
        noise = Noise(seed, range(n))
        inputs = {"z": noise.normal(self.model.prior.z_shape).flatten(1)}
        if self.noise_draws:
            inputs["noise"] = torch.stack([noise.normal(self.space.shape) for _ in range(self.noise_draws)], 1)
        return inputs | self.condition.encode(self.condition.draw(n, Noise(seed, range(n))))

    @torch.inference_mode()
    def _count_noise_draws(self) -> int:
        """Count how often the sampler draws noise."""
        noise = DrawnNoise([], spare=torch.zeros(1, *self.space.shape))
        self.model.decode(noise.spare, noise, self.null, reverse_settings(self.settings, None), self.null)  # type: ignore[arg-type]
        return noise.used


def _decoder(network: nn.Module) -> nn.Module:
    """Return the decoder of an autoencoder of diffusers, changed so that it can be traced for any batch."""
    parts = nn.ModuleList(part for name, part in network.named_children() if name not in ("encoder", "quant_conv"))
    for layer in parts.modules():
        if type(layer).__name__ == "Upsample2D" and layer.interpolate and layer.use_conv and layer.norm is None:
            layer.forward = partial(_upsample, layer)  # theirs reads the size of the batch
    return parts


def _upsample(layer: Any, x: Tensor, output_size: None = None) -> Tensor:
    """Repeat pixels, then convolve."""
    x = interpolate(x, scale_factor=2.0, mode="nearest")
    doubled: Tensor = (layer.conv if layer.name == "conv" else layer.Conv2d_0)(x)
    return doubled


class DrawnNoise:
    """A replacement of Noise that returns tensors drawn before, in order, and counts the calls."""

    def __init__(self, tensors: Sequence[Tensor], spare: Tensor | None = None) -> None:
        self.tensors, self.spare, self.used = list(tensors), spare, 0

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Return the next tensor, or the spare one if none is left."""
        self.used += 1
        if self.used > len(self.tensors) and self.spare is not None:
            return self.spare
        return self.tensors[self.used - 1]


def metadata(loaded: LoadedModel, settings: SampleConfig, licence: str) -> dict[str, str]:
    """Return the metadata of an exported file."""
    config, model = loaded.components.config, loaded.components.model
    return {
        "made_by": f"tdpm {__version__}",
        "preset": config.preset,
        "T": str(model.denoiser.schedule.T),
        "truncation": loaded.components.schedule_text,
        "sampler": settings.sampler,
        "steps": str(settings.steps),
        "spacing": f"{settings.spacing:g}",
        "guidance_scale": f"{settings.guidance_scale:g}",
        "prior_guidance_scale": f"{settings.prior_guidance_scale:g}",
        "nfe": f"{nfe_text(model, settings)} = {nfe(model, settings)}",
        "z_size": str(math.prod(model.prior.z_shape)),
        "weights": loaded.weights,
        "trained_images": str(loaded.seen),
        "model_sha256": loaded.sha256,
        "licence": licence,
    }
