"""A folder of diffusers with UNet2DModel and DDIMScheduler for the denoiser, and a pipeline of tdpm for the prior."""

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Template

from safetensors.torch import save_file
from torch import Tensor

from tdpm_cli.convert.diffusers_unet import PREDICTIONS, config_of, tensors_of
from tdpm_cli.export.export import ExportRequest
from tdpm_cli.export.sampler_module import Inputs, SamplerModule
from tdpm_cli.export.verified import export_sampler
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.build import LoadedModel
from tdpm_cli.spaces.latents import Latents

__all__ = ["Diffusers"]

MISSING = "--format diffusers needs diffusers; install it with: pip install 'tdpm-cli[export]'"
X_T = {  # how the pipeline computes x_T from z, by prior; `self.prior` is the prior's own U-Net
    "gaussian": "x = z",
    "shared": "x = self.unet(z, T, labels).sample",
    "copy": "x = self.prior(z, T, labels).sample",
    "shared-x0": "z, eps = z.chunk(2, 1)\n        x = $alpha_T * self.unet(z, T, labels).sample + $sigma_T * eps",
    "denoised": "z, eps = z.chunk(2, 1)\n"
    "        z = $sigma_t * z\n"
    "        output = self.prior(z, $time, labels).sample\n"
    "        x = $alpha_T * ($x_0) + $sigma_T * eps",
}
DECODED = "\n        x = self.vqvae.decode(x / self.vqvae.config.scaling_factor).sample"
X_0 = {"eps": "(z - $sigma_t * output) / $alpha_t", "x_0": "output", "v": "$alpha_t * z - $sigma_t * output"}
PIPELINE = Template('''\
"""x_T from a learned prior, then DDIM: a truncated diffusion model (Zheng et al. 2023) as a pipeline of diffusers.

    pipeline = DiffusionPipeline.from_pretrained(FOLDER, custom_pipeline=FOLDER, trust_remote_code=True)
    images = pipeline(batch_size=16).images
"""

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.utils.torch_utils import randn_tensor


class TruncatedPipeline(DiffusionPipeline):
    def __init__(self, unet, scheduler$arguments):
        super().__init__()
        self.register_modules(unet=unet, scheduler=scheduler$modules)

    @torch.no_grad()
    def __call__(self, batch_size=1, num_inference_steps=$steps, generator=None, z=None, labels=None,
                 output_type="pil"):
        """$steps steps, or another number that divides $T. Draws z [batch_size, $z] if it is None."""
        if z is None:
            z = randn_tensor((batch_size, $z), generator=generator, device=self.unet.device)
        T = self.scheduler.config.num_train_timesteps
        $x_T
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            output = self.unet(x, t, labels).sample
            x = self.scheduler.step(output, t, x, use_clipped_model_output=True).prev_sample
        if output_type == "latent":
            return ImagePipelineOutput(images=x)$decoded
        if output_type == "pt":
            return ImagePipelineOutput(images=x)
        images = (x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(images) if output_type == "pil" else images)
''')


class Diffusers:
    """A folder that diffusers loads."""

    def export(self, loaded: LoadedModel, file: Path, request: ExportRequest) -> str:
        """Write and verify the folder."""
        return export_sampler(self, loaded, file, request).text

    def write(self, sampler: SamplerModule, inputs: Inputs, path: Path, metadata: Mapping[str, str]) -> None:
        """Write the folder `path`. Raises InputError for a model or settings without an equal in diffusers."""
        networks = {"unet": _checked_unet(sampler)}
        if sampler.prior_name in ("copy", "denoised"):
            prior = sampler.model.prior
            networks["prior"] = prior.network if sampler.prior_name == "copy" else prior.denoiser.network
        for name, network in networks.items():
            (path / name).mkdir(parents=True)
            _write_json(path / name / "config.json", config_of(network, tuple(sampler.space.shape)))
            save_file(tensors_of(network), path / name / "diffusion_pytorch_model.safetensors", {"format": "pt"})
        space = sampler.space
        index = {"_class_name": "LDMPipeline" if isinstance(space, Latents) else "DDIMPipeline",
                 "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
        index |= {name: ["diffusers", "UNet2DModel"] for name in networks}
        if isinstance(space, Latents):
            _save_autoencoder(space, path / "vqvae")
            index["vqvae"] = ["diffusers", space.autoencoder.class_name]  # LDMPipeline's name for any autoencoder
        (path / "scheduler").mkdir()
        _write_json(path / "scheduler" / "scheduler_config.json", _scheduler(sampler))
        _write_json(path / "model_index.json", index)
        (path / "pipeline.py").write_text(_pipeline(sampler, [name for name in ("prior", "vqvae") if name in index]))
        _write_json(path / "tdpm.json", metadata)

    def run(self, path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return images and x_0 as diffusers computes them."""
        from diffusers import DDIMPipeline, DiffusionPipeline, LDMPipeline
        from diffusers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from diffusers and its requirements
            stock = DiffusionPipeline.from_pretrained(str(path))
            assert isinstance(stock, DDIMPipeline | LDMPipeline)
            pipeline = DiffusionPipeline.from_pretrained(str(path), custom_pipeline=str(path), trust_remote_code=True)
        pipeline.set_progress_bar_config(disable=True)
        channels = pipeline.unet.config.in_channels
        side = pipeline.unet.config.sample_size
        height, width = side if isinstance(side, list | tuple) else (side, side)
        z = inputs["z"].view(len(inputs["z"]), -1, height, width)
        x_0, images = (pipeline(z=z, labels=inputs.get("label"), output_type=kind).images for kind in ("latent", "pt"))
        assert x_0.shape[1] == channels
        return (images * 127.5 + 127.5).round().clamp(0, 255).byte(), x_0


def _checked_unet(sampler: SamplerModule) -> UNet:
    """Return the denoiser's U-Net. Raises InputError for a model or settings without an equal in diffusers."""
    if find_spec("diffusers") is None:
        raise InputError(MISSING)
    settings, T, unet = sampler.settings, sampler.model.denoiser.schedule.T, sampler.model.denoiser.network
    if not isinstance(unet, UNet):
        raise InputError("--format diffusers needs a U-Net as the backbone; use --format onnx or torch")
    if sampler.prior_name not in X_T:
        raise InputError(f"--format diffusers: diffusers has no prior {sampler.prior_name!r}; "
                         f"accepted: {', '.join(X_T)}; for others use --format onnx or torch")  # fmt: skip
    guided = settings.guidance_scale != 1 or settings.prior_guidance_scale != 1
    if settings.sampler != "ddim" or settings.spacing != 1 or guided or sampler.noise_draws or T % settings.steps:
        fitting = ", ".join(str(n) for n in range(1, min(T, 65)) if T % n == 0)
        raise InputError(
            "--format diffusers: DDIMScheduler supports ddim with even steps, without noise or guidance, and a number "
            f"of steps that divides T = {T}; use --sampler ddim --spacing 1 --steps N, N of {fitting}"
        )
    return unet


def _write_json(path: Path, content: Mapping[str, object]) -> None:
    path.write_text(json.dumps(dict(content), indent=2))


def _scheduler(sampler: SamplerModule) -> Json:
    """Return the config of DDIM on the truncated schedule, whose times count from 0."""
    alpha_bar = sampler.model.denoiser.schedule.alpha_bar
    bounds = sampler.space.bounds
    predictions = {ours: name for name, ours in PREDICTIONS.items()}
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": len(alpha_bar) - 1,
        "trained_betas": (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist(), "timestep_spacing": "trailing",
        "prediction_type": predictions[sampler.model.denoiser.prediction], "set_alpha_to_one": True, "steps_offset": 0,
        "clip_sample": bounds is not None, "clip_sample_range": bounds[1] if bounds else 1.0,
    }  # fmt: skip


def _save_autoencoder(space: Latents, path: Path) -> None:
    """Save the autoencoder for LDMPipeline, which divides latents by scaling_factor. Raises InputError for a shift."""
    autoencoder = space.autoencoder
    if autoencoder.shift:
        raise InputError(f"--format diffusers: {space.source} shifts latents by {autoencoder.shift:g}, which "
                         "LDMPipeline does not support; use --format onnx or torch")  # fmt: skip
    autoencoder.network.register_to_config(scaling_factor=space.scale or autoencoder.scale)
    autoencoder.network.save_pretrained(path)


def _pipeline(sampler: SamplerModule, others: Sequence[str]) -> str:
    """Return the text of pipeline.py; `others` are its networks apart from the U-Net."""
    prior, schedule = sampler.model.prior, sampler.model.denoiser.schedule
    values: dict[str, object] = {"alpha_T": schedule.alpha(schedule.T), "sigma_T": schedule.sigma(schedule.T)}
    x_T = X_T[sampler.prior_name]
    if sampler.prior_name == "denoised":
        values |= {"time": prior.t - 1, "alpha_t": schedule.untruncated.alpha(prior.t), "sigma_t": prior.sigma_t}
        x_T = x_T.replace("$x_0", X_0[prior.denoiser.prediction])
    return PIPELINE.substitute(
        x_T=Template(x_T).substitute(values), T=schedule.T, steps=sampler.settings.steps,
        z=", ".join(map(str, prior.z_shape)),
        arguments="".join(f", {name}" for name in others), modules="".join(f", {name}={name}" for name in others),
        decoded=DECODED if "vqvae" in others else "",
    )  # fmt: skip
