"""Sampling to PNGs on disk, ours against diffusers' DDIMPipeline with the same U-Net and as many network calls.

Both read their weights from a file, draw, and write every image. What ours takes beyond its own network is shown, by
the time of as many network calls alone.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.peer import unet
from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="whose networks, unconditional (cifar10)")
    parser.add_argument("--steps", type=int, default=4, help="reverse steps; one more call is the prior's (4)")
    parser.add_argument("--n", type=int, default=64, help="images (64)")
    parser.add_argument("--batch", type=int, default=32, help="images at a time (32)")
    parser.add_argument("--rounds", type=int, default=2, help="runs of each (2)")
    parser.add_argument("--precision", default="auto", help="of ours (auto)")


def run(preset: str, steps: int, n: int, batch: int, rounds: int, precision: str) -> None:
    import torch

    from tdpm_cli.checkpoints.weights import write_weights
    from tdpm_cli.config import schema
    from tdpm_cli.runtime.device import device
    from tdpm_cli.sampling.build import build, header
    from tdpm_cli.sampling.sample import sample
    from tdpm_cli.sampling.settings import settings_of

    where = device()
    made = build(schema.load_config(preset), where)
    for weights in made.model.parameters():  # layers that begin at zero would make some of the work trivial
        torch.nn.init.normal_(weights, std=0.02)
    settings = settings_of(made, precision=None if precision == "auto" else precision)
    calls = made.model.nfe(steps)
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        write_weights(place / "ours.safetensors", made.model, header(made.config, "model", 0))
        save_pipeline(made, place / "peer")
        network = made.model.eval().denoiser.network
        x, t = torch.randn((batch, *made.space.shape), device=where), torch.ones(batch, dtype=torch.long, device=where)
        # The sampler asks for the network in this number format, in batches of this size.
        cast = torch.autocast(where.type, torch.bfloat16, enabled=settings.precision == "bf16")

        def alone() -> None:
            with torch.inference_mode(), cast:
                for _ in range(n // batch * calls):
                    network(x, t)

        def ours() -> None:
            sample(place / "out", n, place / "ours.safetensors", steps=steps, sampler="ddim", batch=batch,
                   precision=settings.precision, overwrite=True)  # fmt: skip

        def peer() -> None:
            run_pipeline(place / "peer", place / "theirs", n, batch, calls, where)

        times = medians({"ours": ours, "peer": peer, "network alone": alone}, rounds)
        count = [len(list((place / name).glob("*.png"))) for name in ("out", "theirs")]
        assert count == [n, n], count
    print(f"sampling {preset}, {n} images, batch {batch}, {calls} network calls; {machine()}; medians of {rounds}")
    row(f"tdpm sample, {settings.precision}", f"{n / times['ours']:.3g} img/s")
    row("diffusers' DDIMPipeline, fp32", f"{n / times['peer']:.3g} img/s", times["peer"] / times["ours"])
    row("our network alone", f"{n / times['network alone']:.3g} img/s", times["ours"] / times["network alone"])


def save_pipeline(made: Any, place: Path) -> None:
    """diffusers' pipeline of a U-Net of the same build, with random weights."""
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler

    network = unet(made.space.shape, made.config.backbone.options)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.02)
    DDIMPipeline(network, DDIMScheduler(num_train_timesteps=1000)).save_pretrained(place)


def run_pipeline(place: Path, out: Path, n: int, batch: int, calls: int, where: Any) -> None:
    """Load diffusers' pipeline, draw n images in batches, and save them."""
    from diffusers import DDIMPipeline

    pipeline = DDIMPipeline.from_pretrained(place).to(where)
    pipeline.set_progress_bar_config(disable=True)
    out.mkdir(exist_ok=True)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        for k, image in enumerate(pipeline(batch_size=size, num_inference_steps=calls).images):
            image.save(out / f"{start + k:06d}.png")
