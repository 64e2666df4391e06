"""Training on latents encoded beforehand, compared with encoding during training: scripts/bench latents

Images are random. Without --autoencoder, the autoencoder has Stable Diffusion's architecture and random weights; times
do not depend on either. MiniLM embeds the captions. Prints milliseconds of one core an image.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from scripts.benchmarks.timing import machine, medians, row
from tdpm_cli.config import load_config
from tdpm_cli.runtime import device as devices
from tdpm_cli.sampling.build import build
from tdpm_cli.training.state import TrainerState
from tdpm_cli.training.trainer import train_on


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="coco-256-tldm", help="preset of the networks (coco-256-tldm)")
    parser.add_argument("--autoencoder", help="folder saved by diffusers")
    parser.add_argument("--batch", type=int, default=2, help="images in a step (2)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs (3)")


def run(preset: str, autoencoder: str | None, batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    print(machine())
    with TemporaryDirectory() as folder:
        config = load_config(preset, [
            f"space.autoencoder={autoencoder or stable_diffusion(Path(folder))}", "train.precision=fp32",
            f"train.batch={batch}", "condition.text_encoder=minilm",
        ])  # fmt: skip
        device = devices.device()
        components = build(config, device)
        state = TrainerState(components, device)
        images = torch.randint(0, 256, (batch, *components.space.raw_shape), dtype=torch.uint8)
        encoded = torch.cat(components.space.autoencoder.encode(images.to(device) / 127.5 - 1), 1)

        def step(raw: torch.Tensor) -> None:
            state.step = 1  # most steps have no lazy penalty
            train_on(state, raw, {"captions": [("a photo",)] * batch}, devices.autocast("fp32", device))

        steps = {"encoded beforehand": lambda: step(encoded), "encoded in training": lambda: step(images)}
        times = medians(steps, rounds)
    for name, seconds in times.items():
        row(f"{preset}, {name}", f"{1000 * seconds / batch:.1f} ms", times["encoded in training"] / seconds)


def stable_diffusion(folder: Path) -> Path:
    """Save an autoencoder of Stable Diffusion's architecture (Rombach et al. 2022, f = 8) with random weights."""
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
    ).save_pretrained(folder)  # fmt: skip
    return folder
