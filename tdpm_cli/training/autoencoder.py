"""`tdpm data autoencoder`: train an autoencoder of images, for models of latents."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.checkpoints import weights
from tdpm_cli.config import registry
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.console import next_command, print_line
from tdpm_cli.runtime.destinations import check_destination
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import staging
from tdpm_cli.training.helper_network import HelperTask, train_helper

BATCH, LEARNING_RATE = 32, 1e-3  # images a step; of Adam
KL_WEIGHT = 1e-6  # of the divergence of latents from N(0, I) (Rombach et al. 2022, appendix G)
MEASURED_IMAGES = 1000  # images that the scale and the error are measured on
MEASURED_TOGETHER = 64


@dataclass(frozen=True)
class AutoencoderOptions:
    """The architecture and the length of training."""

    side: int  # of the images, in pixels
    channels: int = 4  # of the latents
    factor: int = 4  # side of the images over that of the latents
    width: int = 32  # channels at the first level
    images: int = 200_000  # training images


def autoencoder(out: Path, source: Path, options: AutoencoderOptions) -> None:
    """Train an `AutoencoderKL` of diffusers on the images of `source`, and save it to the folder `out`.

    The loss is the absolute error plus a small divergence from N(0, I). Run again to continue. Raises InputError for
    options that do not fit, and Interrupted once an interrupted task is saved.
    """
    side, factor = options.side, options.factor
    if out.exists():
        raise InputError(f"{out}: it exists; name another folder for the autoencoder, or move it away")
    check_destination(out, [source])
    if factor < 2 or factor & (factor - 1) or side % factor:
        raise InputError(
            f"--factor is {factor}: it must be a power of 2, at least 2, that divides --resolution, {side}"
        )
    data, device = open_images(source, side)[0], devices.device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _build(data[[0]][0].shape[1], options).to(device)

    def loss(
        raw: Tensor, raw_condition: RawCondition, generator: torch.Generator
    ) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = raw.float() / 127.5 - 1
        latents = network.encode(x).latent_dist
        z = latents.mean + latents.std * torch.randn(latents.mean.shape, generator=generator, device=x.device)
        error = (network.decode(z).sample.float() - x).abs().mean()
        return error + KL_WEIGHT * latents.kl().float().mean() / x[0].numel(), {"error": error.detach()}

    state, plan = out.with_name(out.name + ".state"), {"data": data.fingerprint(), **asdict(options)}
    task = HelperTask("autoencoder", network, loss, state, plan, options.images, min(BATCH, len(data)),
                      LEARNING_RATE, flip=True)  # fmt: skip
    train_helper(task, data, device)
    scale, psnr = _measure(network, data, device)
    network.register_to_config(scaling_factor=scale)
    with staging(out) as part, weights.disk_errors():
        network.cpu().save_pretrained(part)
    state.unlink(missing_ok=True)
    size = f"{options.channels}×{side // factor}×{side // factor}"
    print_line(
        f"done: {out}, latents {size}, scale {scale:.4g}, PSNR {psnr:.1f} dB on training images\n"
        + next_command("tdpm data encode", source, "latents.zip", "--autoencoder", out, "--resolution", side)
    )


def open_images(source: Path, side: int) -> tuple[Dataset, str]:
    """Open the images of `source`, squares of one size; return the dataset and its name."""
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; accepted: the sources of `tdpm train --data`")
    name = registry.recognise(source, "images")
    return registry.load("dataset", name)(source, (3, side, side)), name


def _build(colours: int, options: AutoencoderOptions) -> Any:
    """Build an AutoencoderKL with random weights. Raises InputError if diffusers is not installed."""
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise InputError("autoencoders need diffusers; install it with: pip install 'tdpm-cli[latents]'") from None
    levels, width = int(math.log2(options.factor)) + 1, options.width
    return AutoencoderKL(
        in_channels=colours, out_channels=colours, latent_channels=options.channels, sample_size=options.side,
        layers_per_block=1, block_out_channels=tuple(width * min(2**level, 4) for level in range(levels)),
        norm_num_groups=min(width, 8), down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels, mid_block_add_attention=False,
    )  # fmt: skip


@torch.no_grad()
def _measure(network: Any, data: Dataset, device: torch.device) -> tuple[float, float]:
    """Return 1 / standard deviation of the latents, and the peak signal-to-noise ratio of reconstructions in dB."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:MEASURED_IMAGES].tolist()
    latents, errors = [], []
    for start in range(0, len(order), MEASURED_TOGETHER):
        x = (data[sorted(order[start : start + MEASURED_TOGETHER])][0].float() / 127.5 - 1).to(device)
        mean = network.encode(x).latent_dist.mean
        latents.append(mean.cpu())
        errors.append((network.decode(mean).sample.clamp(-1, 1) - x).square().flatten(1).mean(1).cpu())
    return 1 / float(torch.cat(latents).std()), 10 * math.log10(4 / float(torch.cat(errors).mean()))
