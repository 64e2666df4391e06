"""Training on latents that were encoded beforehand, against encoding as it goes: milliseconds of one core an image.

Images are random, and so are the weights where no autoencoder is given: it then has the architecture of Stable
Diffusion's. Times do not depend on either. Texts are embedded by MiniLM, whatever the preset's encoder.
"""

import argparse
from pathlib import Path
from tempfile import TemporaryDirectory

import torch

from scripts.benchmarks.timing import machine, medians, row
from tdpm_cli.config import presets
from tdpm_cli.config import schema as config
from tdpm_cli.runtime import device as precision
from tdpm_cli.sampling.build import build
from tdpm_cli.training.trainer import Trainer


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="coco-256-tldm")
    parser.add_argument("--autoencoder", help="a folder that diffusers saved")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)


def run(preset: str, autoencoder: str | None, batch: int, rounds: int) -> None:
    torch.set_num_threads(1)
    print(machine())
    with TemporaryDirectory() as folder:
        plain = presets.override(presets.read_preset(preset), [
            f"space.autoencoder={autoencoder or stable_diffusions(Path(folder))}", "train.precision=fp32",
            f"train.batch={batch}", "condition.text_encoder=minilm",
        ])  # fmt: skip
        device = precision.device()
        made = build(config.load_config(plain), device)
        trainer = Trainer(made, Path("unused"), device)
        images = torch.randint(0, 256, (batch, *made.space.raw_shape), dtype=torch.uint8)
        encoded = torch.cat(made.space.autoencoder.encode(images.to(device) / 127.5 - 1), 1)

        def step(raw: torch.Tensor) -> None:
            trainer.step = 1  # a step without the lazy penalty, as most are
            trainer.train_on(raw, {"captions": [("a photo",)] * batch}, precision.autocast("fp32", device))

        works = {"encoded beforehand": lambda: step(encoded), "encoded as it goes": lambda: step(images)}
        found = medians(works, rounds)
    for name, seconds in found.items():
        row(f"{preset}, {name}", f"{1000 * seconds / batch:.1f} ms", found["encoded as it goes"] / seconds)


def stable_diffusions(folder: Path) -> Path:
    """An autoencoder of Stable Diffusion's architecture (Rombach et al. 2022, f = 8), with random weights."""
    from diffusers import AutoencoderKL

    AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(128, 256, 512, 512), layers_per_block=2, latent_channels=4, scaling_factor=0.18215,
    ).save_pretrained(folder)  # fmt: skip
    return folder
