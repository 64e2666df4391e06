"""Training on latents that were encoded beforehand, against encoding as it goes: seconds of one core an image."""

import argparse
import time
from pathlib import Path

import torch

from tdpm_cli import config, presets
from tdpm_cli.assemble import assemble, read_data
from tdpm_cli.run import precision
from tdpm_cli.training import Trainer

BATCH = 32


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--latents", type=Path, required=True, help="what `tdpm data encode` wrote")
    parser.add_argument("--images", type=Path, required=True, help="what it was made of")
    parser.add_argument("--autoencoder", required=True)
    parser.add_argument("--preset", default="emoji-64-latent")
    parser.add_argument("--rounds", type=int, default=4)


def run(latents: Path, images: Path, autoencoder: str, preset: str, rounds: int) -> None:
    torch.set_num_threads(1)
    device = precision.device()
    spent: dict[Path, float] = {}
    work = {}
    for path in (latents, images):
        chosen = [f"space.autoencoder={autoencoder}", "train.precision=fp32"]
        plain = presets.override(presets.read_preset(preset), chosen)
        data, made = read_data(config.from_dict(presets.with_data(plain, path, False)))
        work[path] = data, Trainer(assemble(made, device), Path("unused"), device)
        spent[path] = 0.0
    for number in range(rounds + 1):  # by turns; the first warms up
        for path, (data, trainer) in work.items():
            trainer.step = 1  # a step without the lazy penalty, as most are
            batch = data[range(BATCH)]
            begin = time.process_time()
            trainer.train_on(*batch, precision.autocast("fp32", device))
            spent[path] += time.process_time() - begin if number else 0.0
    seconds = {path: total / (rounds * BATCH) for path, total in spent.items()}
    for path, each in seconds.items():
        print(f"{path}: {1000 * each:.1f} ms an image")
    print(f"{seconds[images] / seconds[latents]:.2f} times as fast")
