"""Sampling to PNG files, compared with diffusers' DDIMPipeline: scripts/bench sample

Both have the same U-Net and number of network calls, read their weights from a file, and write every image. Prints
images per second of both, and of the network calls alone, which bounds the speed of tdpm.
"""

import argparse
import tempfile
from pathlib import Path
from typing import Any

from scripts.benchmarks.peer import unet
from scripts.benchmarks.timing import machine, medians, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="preset of the networks, unconditional (cifar10)")
    parser.add_argument("--steps", type=int, default=4, help="reverse steps; the prior adds one call (4)")
    parser.add_argument("--n", type=int, default=64, help="images (64)")
    parser.add_argument("--batch", type=int, default=32, help="batch size (32)")
    parser.add_argument("--rounds", type=int, default=2, help="timed runs (2)")
    parser.add_argument("--precision", default="auto", help="number format of tdpm (auto)")


def run(preset: str, steps: int, n: int, batch: int, rounds: int, precision: str) -> None:
    import torch

    from tdpm_cli.checkpoints.weights import write_weights
    from tdpm_cli.config import load_config
    from tdpm_cli.runtime.device import device
    from tdpm_cli.sampling.build import build, header
    from tdpm_cli.sampling.options import SampleOptions
    from tdpm_cli.sampling.sample import sample
    from tdpm_cli.sampling.settings import settings_of

    where = device()
    components = build(load_config(preset), where)
    for weights in components.model.parameters():  # layers initialised to zero would make the work trivial
        torch.nn.init.normal_(weights, std=0.02)
    settings = settings_of(components, precision=None if precision == "auto" else precision)
    calls = components.model.nfe(steps)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_weights(root / "ours.safetensors", components.model, header(components.config, "model", 0))
        save_pipeline(components, root / "peer")
        network = components.model.eval().denoiser.network
        x, t = (
            torch.randn((batch, *components.space.shape), device=where),
            torch.ones(batch, dtype=torch.long, device=where),
        )
        # The sampler calls the network in this number format, with this batch size.
        cast = torch.autocast(where.type, torch.bfloat16, enabled=settings.precision == "bf16")

        def alone() -> None:
            with torch.inference_mode(), cast:
                for _ in range(n // batch * calls):
                    network(x, t)

        def ours() -> None:
            sampling = {"steps": steps, "sampler": "ddim", "batch": batch, "precision": settings.precision}
            model = root / "ours.safetensors"
            sample(root / "out", SampleOptions(model=model, n=n, sampling=sampling, overwrite=True))

        def peer() -> None:
            run_pipeline(root / "peer", root / "theirs", n, batch, calls, where)

        times = medians({"ours": ours, "peer": peer, "network alone": alone}, rounds)
        count = [len(list((root / name).glob("*.png"))) for name in ("out", "theirs")]
        assert count == [n, n], count
    print(f"sampling {preset}, {n} images, batch {batch}, {calls} network calls; {machine()}; medians of {rounds}")
    row(f"tdpm sample, {settings.precision}", f"{n / times['ours']:.3g} img/s")
    row("diffusers' DDIMPipeline, fp32", f"{n / times['peer']:.3g} img/s", times["peer"] / times["ours"])
    row("our network alone", f"{n / times['network alone']:.3g} img/s", times["ours"] / times["network alone"])


def save_pipeline(components: Any, folder: Path) -> None:
    """Save diffusers' pipeline of a U-Net with the same layers and random weights."""
    import torch
    from diffusers import DDIMPipeline, DDIMScheduler

    network = unet(components.space.shape, components.config.backbone.options)
    for weights in network.parameters():
        torch.nn.init.normal_(weights, std=0.02)
    DDIMPipeline(network, DDIMScheduler(num_train_timesteps=1000)).save_pretrained(folder)


def run_pipeline(folder: Path, out: Path, n: int, batch: int, calls: int, where: Any) -> None:
    """Load diffusers' pipeline, sample n images in batches, and save them."""
    from diffusers import DDIMPipeline

    pipeline = DDIMPipeline.from_pretrained(folder).to(where)
    pipeline.set_progress_bar_config(disable=True)
    out.mkdir(exist_ok=True)
    for start in range(0, n, batch):
        size = min(batch, n - start)
        for k, image in enumerate(pipeline(batch_size=size, num_inference_steps=calls).images):
            image.save(out / f"{start + k:06d}.png")
