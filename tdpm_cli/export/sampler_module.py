"""The whole sampler as one module: from numbers drawn outside to finished images, what is exported as a graph."""

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
from tdpm_cli.sampling.build import Loaded
from tdpm_cli.sampling.settings import nfe, nfe_text, prior_options, reverse_settings

Inputs = dict[str, Tensor]


class Whole(nn.Module):
    """{"z": [B, Z], "noise": [B, N, *shape], conditions} → (images, x_0).

    z is all that the prior draws, flat. There is no "noise" where the sampler draws none (N = 0). Images are uint8
    [B, C, H, W], of 3 channels where `rgb`; x_0 is what they are rounded from, float32 [B, *shape].
    """

    def __init__(self, loaded: Loaded, settings: SampleConfig, rgb: bool) -> None:
        super().__init__()
        made = loaded.components
        self.model, self.space, self.condition = made.model, made.space, made.condition
        self.settings, self.rgb, self.prior_name = settings, rgb, made.config.prior.name
        if rgb and self.space.raw_shape[0] != 1:
            raise InputError(f"--rgb: the model's data have shape {list(self.space.raw_shape)}; it is for grey images")
        if (coder := getattr(self.space, "autoencoder", None)) is not None:
            self.decoder = _decoder(coder.network)
            self.space.slices = None  # all images at once
        self.null = made.condition.null(1)
        self.draws = self._count()

    def forward(self, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Images and x_0."""
        rest = dict(inputs)
        z, noise = rest.pop("z"), rest.pop("noise", None)
        drawn = Drawn([z.view(-1, *self.model.prior.z_shape), *(() if noise is None else noise.unbind(1))])
        null = {key: value.expand(z.shape[0], *value.shape[1:]) for key, value in self.null.items()}
        x_T = self.model.draw_x_T(drawn, rest, null=null, **prior_options(self.settings))  # type: ignore[arg-type]
        reverse = reverse_settings(self.settings, self.space.bounds)
        x_0 = self.model.decode(x_T, drawn, rest, reverse, null)  # type: ignore[arg-type]
        images = self.space.decode(x_0)
        return (images.expand(-1, 3, -1, -1) if self.rgb else images), x_0

    def inputs(self, n: int, seed: int = 0) -> Inputs:
        """Inputs of n samples, drawn as `tdpm sample` draws them."""
        noise = Noise(seed, range(n))
        found = {"z": noise.normal(self.model.prior.z_shape).flatten(1)}
        if self.draws:
            found["noise"] = torch.stack([noise.normal(self.space.shape) for _ in range(self.draws)], 1)
        return found | self.condition.encode(self.condition.draw(n, Noise(seed, range(n))))

    @torch.inference_mode()
    def _count(self) -> int:
        """How often the sampler draws noise."""
        noise = Drawn([], spare=torch.zeros(1, *self.space.shape))
        self.model.decode(noise.spare, noise, self.null, reverse_settings(self.settings, None), self.null)  # type: ignore[arg-type]
        return noise.used


def _decoder(network: nn.Module) -> nn.Module:
    """The half of an autoencoder of diffusers that belongs to the graph, made to be traced for any batch."""
    parts = nn.ModuleList(part for name, part in network.named_children() if name not in ("text_encoder", "quant_conv"))
    for layer in parts.modules():
        if type(layer).__name__ == "Upsample2D" and layer.interpolate and layer.use_conv and layer.norm is None:
            layer.forward = partial(_doubled, layer)  # theirs asks how large a batch is
    return parts


def _doubled(layer: Any, x: Tensor, output_size: None = None) -> Tensor:
    """Nearest neighbours, and a convolution."""
    x = interpolate(x, scale_factor=2.0, mode="nearest")
    doubled: Tensor = (layer.conv if layer.name == "conv" else layer.Conv2d_0)(x)
    return doubled


class Drawn:
    """Stands in for Noise: hands out what was drawn before, in order."""

    def __init__(self, tensors: Sequence[Tensor], spare: Tensor | None = None) -> None:
        self.tensors, self.spare, self.used = list(tensors), spare, 0

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next of them, or the spare one where they are used up."""
        self.used += 1
        if self.used > len(self.tensors) and self.spare is not None:
            return self.spare
        return self.tensors[self.used - 1]


def describe(loaded: Loaded, settings: SampleConfig, licence: str) -> dict[str, str]:
    """What an exported file says of itself."""
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
