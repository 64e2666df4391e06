"""A folder of diffusers: `UNet2DModel` and `DDIMScheduler` for the denoiser, and a pipeline of ours for the prior."""

import json
import warnings
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from string import Template
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from tdpm_cli.convert.diffusers_unet import PREDICTIONS, config_of, tensors_of
from tdpm_cli.export.sampler_module import Inputs, Whole
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError

MISSING = "--format diffusers needs diffusers; install it with: pip install 'tdpm-cli[export]'"
X_T = {  # how each prior draws x_T, given z; `prior` is a U-Net of its own
    "gaussian": "x = z",
    "shared": "x = self.unet(z, T, labels).sample",
    "copy": "x = self.prior(z, T, labels).sample",
    "shared-x0": "z, eps = z.chunk(2, 1)\n        x = $alpha_T * self.unet(z, T, labels).sample + $sigma_T * eps",
    "denoised": "z, eps = z.chunk(2, 1)\n"
    "        z = $sigma_t * z\n"
    "        told = self.prior(z, $time, labels).sample\n"
    "        x = $alpha_T * ($x_0) + $sigma_T * eps",
}
DECODED = "\n        x = self.vqvae.decode(x / self.vqvae.config.scaling_factor).sample"
X_0 = {"eps": "(z - $sigma_t * told) / $alpha_t", "x_0": "told", "v": "$alpha_t * z - $sigma_t * told"}
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
        """$steps steps, or another number that divides $T. z [batch_size, $z] is drawn where it is not given."""
        if z is None:
            z = randn_tensor((batch_size, $z), generator=generator, device=self.unet.device)
        T = self.scheduler.config.num_train_timesteps
        $x_T
        self.scheduler.set_timesteps(num_inference_steps)
        for t in self.scheduler.timesteps:
            told = self.unet(x, t, labels).sample
            x = self.scheduler.step(told, t, x, use_clipped_model_output=True).prev_sample
        if output_type == "latent":
            return ImagePipelineOutput(images=x)$decoded
        if output_type == "pt":
            return ImagePipelineOutput(images=x)
        images = (x / 2 + 0.5).clamp(0, 1).cpu().permute(0, 2, 3, 1).numpy()
        return ImagePipelineOutput(images=self.numpy_to_pil(images) if output_type == "pil" else images)
''')


def write(whole: Whole, inputs: Inputs, path: Path, about: Mapping[str, str]) -> None:
    """Write the folder `path`. Raises InputError for a model or settings that diffusers has no equal for."""
    if find_spec("diffusers") is None:
        raise InputError(MISSING)
    denoiser, prior, settings = whole.model.denoiser, whole.model.prior, whole.settings
    T, unet = denoiser.schedule.T, denoiser.network
    if not isinstance(unet, UNet):
        raise InputError("--format diffusers: the backbone is no U-Net")
    if whole.prior_name not in X_T:
        raise InputError(f"--format diffusers: the prior {whole.prior_name!r} is no network of diffusers; "
                         f"accepted: {', '.join(X_T)}; others: --format onnx or torch")  # fmt: skip
    guided = settings.guidance_scale != 1 or settings.prior_guidance_scale != 1
    if settings.sampler != "ddim" or settings.spacing != 1 or guided or whole.draws or T % settings.steps:
        fitting = ", ".join(str(n) for n in range(1, min(T, 65)) if T % n == 0)
        raise InputError("--format diffusers: its DDIMScheduler takes even steps of ddim, without noise or guidance, "
                         f"as many as divide T = {T}; give --sampler ddim --spacing 1 --steps N, N of {fitting}"
                         )  # fmt: skip
    networks = {"unet": unet}
    if whole.prior_name in ("copy", "denoised"):
        networks["prior"] = prior.network if whole.prior_name == "copy" else prior.denoiser.network
    for name, network in networks.items():
        (path / name).mkdir(parents=True)
        config = config_of(network, tuple(whole.space.shape))
        (path / name / "config.json").write_text(json.dumps(config, indent=2))
        save_file(tensors_of(network), path / name / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    coder = getattr(whole.space, "autoencoder", None)
    if coder is not None:
        _save_autoencoder(whole.space, path / "vqvae")
    (path / "scheduler").mkdir()
    (path / "scheduler" / "scheduler_config.json").write_text(json.dumps(_scheduler(whole), indent=2))
    index = {"_class_name": "LDMPipeline" if coder else "DDIMPipeline", "unet": ["diffusers", "UNet2DModel"],
             "scheduler": ["diffusers", "DDIMScheduler"]}  # fmt: skip
    if "prior" in networks:
        index["prior"] = ["diffusers", "UNet2DModel"]
    if coder is not None:
        index["vqvae"] = ["diffusers", coder.kind]  # as LDMPipeline calls any autoencoder
    (path / "model_index.json").write_text(json.dumps(index, indent=2))
    (path / "pipeline.py").write_text(_pipeline(whole, [name for name in ("prior", "vqvae") if name in index]))
    (path / "tdpm.json").write_text(json.dumps(dict(about), indent=2))


def run(path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Images and x_0, as diffusers computes them."""
    from diffusers import DDIMPipeline, DiffusionPipeline, LDMPipeline
    from diffusers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # diffusers' and its requirements' own
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


def _scheduler(whole: Whole) -> dict[str, Any]:
    """DDIM on the truncated chain, whose times count from 0."""
    alpha_bar = whole.model.denoiser.schedule.alpha_bar
    bounds = whole.space.bounds
    theirs = {ours: name for name, ours in PREDICTIONS.items()}
    return {
        "_class_name": "DDIMScheduler", "num_train_timesteps": len(alpha_bar) - 1,
        "trained_betas": (1 - alpha_bar[1:] / alpha_bar[:-1]).tolist(), "timestep_spacing": "trailing",
        "prediction_type": theirs[whole.model.denoiser.prediction], "set_alpha_to_one": True, "steps_offset": 0,
        "clip_sample": bounds is not None, "clip_sample_range": bounds[1] if bounds else 1.0,
    }  # fmt: skip


def _save_autoencoder(space: Any, path: Path) -> None:
    """As LDMPipeline takes it: latents are divided by its scaling_factor. Raises InputError where there is more."""
    coder = space.autoencoder
    if coder.shift:
        raise InputError(f"--format diffusers: {space.source} shifts latents by {coder.shift:g}, which LDMPipeline "
                         "does not; others: --format onnx or torch")  # fmt: skip
    coder.network.register_to_config(scaling_factor=space.scale or coder.scale)
    coder.network.save_pretrained(path)


def _pipeline(whole: Whole, others: Sequence[str]) -> str:
    """The text of pipeline.py; `others` are its networks beside the U-Net."""
    prior, schedule = whole.model.prior, whole.model.denoiser.schedule
    values: dict[str, Any] = {"alpha_T": schedule.alpha(schedule.T), "sigma_T": schedule.sigma(schedule.T)}
    x_T = X_T[whole.prior_name]
    if whole.prior_name == "denoised":
        values |= {"time": prior.t - 1, "alpha_t": schedule.untruncated.alpha(prior.t), "sigma_t": prior.sigma_t}
        x_T = x_T.replace("$x_0", X_0[prior.denoiser.prediction])
    return PIPELINE.substitute(
        x_T=Template(x_T).substitute(values), T=schedule.T, steps=whole.settings.steps,
        z=", ".join(map(str, prior.z_shape)),
        arguments="".join(f", {name}" for name in others), modules="".join(f", {name}={name}" for name in others),
        decoded=DECODED if "vqvae" in others else "",
    )  # fmt: skip
