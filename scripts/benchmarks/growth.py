"""The time of an image by batch size, resolution and number of samples: scripts/bench growth

Times a U-Net of 32, 64 and 64 channels: the forward pass, as in sampling, and forward and backward, as in training.
Times sampling to PNG files. Prints milliseconds an image, and draws docs/growth.png.
"""

import argparse
import itertools
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, medians

BATCHES, SIDES, COUNTS = (1, 2, 4, 8, 16, 32), (8, 16, 32, 64), (8, 32, 128, 512, 2048, 8192)


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=3, help="timed runs (3)")
    parser.add_argument("--plot", type=Path, default=Path("docs/growth.png"), help="the plot (docs/growth.png)")


def run(rounds: int, plot: Path) -> None:
    by_batch = {batch: calls(batch, 16, rounds) for batch in BATCHES}
    by_side = {side: calls(8, side, rounds) for side in SIDES}
    by_count = samples(rounds)
    about = machine()
    print(f"milliseconds an image; {about}; medians of {rounds}")
    for label, times in (("batch, at 16×16", by_batch), ("side, batch 8", by_side)):
        for x, (forward, both) in times.items():
            print(f"{label:20} {x:5}   forward {forward:8.3f}   forward and backward {both:8.3f}", flush=True)
    for count, seconds in by_count.items():
        print(f"{'samples, 8×8 digits':20} {count:5}   sampled and written {seconds:8.3f}")
    draw(by_batch, by_side, by_count, f"{about}; medians of {rounds}", plot)


def calls(batch: int, side: int, rounds: int) -> tuple[float, float]:
    """Return milliseconds an image of a forward pass, and of a forward and backward pass."""
    import torch

    from tdpm_cli.models.backbones.unet import UNet
    from tdpm_cli.runtime.device import device

    where = device()
    network = UNet((3, side, side), {}, channels=32, mult=[1, 2, 2], blocks=1, attention=[side // 4]).to(where)
    network.to(memory_format=torch.channels_last)
    x, t = torch.randn(batch, 3, side, side, device=where), torch.ones(batch, dtype=torch.long, device=where)

    def forward() -> None:
        with torch.inference_mode():
            network(x, t)

    times = medians({"forward": forward, "both": lambda: network(x, t).square().mean().backward()}, rounds, warm=2)
    return times["forward"] / batch * 1000, times["both"] / batch * 1000


def samples(rounds: int) -> dict[int, float]:
    """Return milliseconds a sample of the digits preset, for each number of samples that are drawn and written."""
    from tdpm_cli.checkpoints.weights import write_weights
    from tdpm_cli.config import load_config
    from tdpm_cli.sampling.build import build, header
    from tdpm_cli.sampling.options import SampleOptions
    from tdpm_cli.sampling.sample import sample

    components = build(load_config("digits"))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_weights(root / "model.safetensors", components.model, header(components.config, "model", 0))

        fresh = (
            root / str(number) for number in itertools.count()
        )  # a new folder each time, as removing an old one takes time

        def work(count: int) -> None:
            sample(next(fresh), SampleOptions(model=root / "model.safetensors", n=count))

        works = {str(count): lambda count=count: work(count) for count in COUNTS}
        return {int(count): seconds / int(count) * 1000 for count, seconds in medians(works, rounds).items()}


def draw(
    by_batch: dict[int, tuple[float, float]], by_side: dict[int, tuple[float, float]], by_count: dict[int, float],
    about: str, path: Path,
) -> None:  # fmt: skip
    """Draw three panels that share the vertical axis."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, sharey=True, figsize=(10, 3.6), layout="constrained")
    for panel, times, label in (
        (panels[0], by_batch, "batch (16×16)"),
        (panels[1], by_side, "height and width (batch 8)"),
    ):
        panel.plot(list(times), [forward for forward, _ in times.values()], "o-", label="network, forward")
        panel.plot(list(times), [both for _, both in times.values()], "s-", label="forward and backward")
        panel.set_xlabel(label)
    panels[2].plot(list(by_count), list(by_count.values()), "^-", color="C2", label="digits sampled and written")
    panels[2].set_xlabel("samples")
    for panel in panels:
        panel.set_xscale("log", base=2)
        panel.set_yscale("log")
        panel.xaxis.set_major_formatter("{x:g}")
        panel.grid(alpha=0.3)
        panel.legend(fontsize=8)
    panels[0].set_ylabel("milliseconds an image")
    figure.suptitle(about, fontsize=8)
    figure.savefig(path, dpi=110)
