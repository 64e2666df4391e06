"""Whether loading keeps up with training, for every preset: scripts/bench supply [PRESET ...]

The need of training has an upper bound: the rate at which the fastest matrix product on all cores of this machine would
do the operations of training on one image. No real step is as fast. One process loads: arrays from memory, or files of
the published size and format that contain noise, which decodes slowest.
Prints the images per second of loading, those of the bound, and their ratio.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.timing import machine, row
from tdpm_cli.runtime.cores import cores

# (width, height, format) of the published files of a preset's data. For other presets: PNGs of its shape.
PUBLISHED = {
    "celeba-64": (178, 218, "JPEG"),
    "ffhq-64": (1024, 1024, "PNG"),
    "ffhq-256": (1024, 1024, "PNG"),
    "afhq-256": (512, 512, "PNG"),
    "imagenet-64": (500, 375, "JPEG"),
    "lsun-bedroom": (341, 256, "WEBP"),
    "lsun-church": (341, 256, "WEBP"),
}
FILES, ARRAYS = 32, 10_000


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("names", nargs="*", metavar="PRESET", help="presets (all)")


def run(names: list[str]) -> None:
    from tdpm_cli.config import load_config, presets
    from tdpm_cli.training.cost import cost_of

    peak = fastest_product()
    print(f"{machine()}: {peak / 1e9:.0f} GFLOP per second at most")
    for name in names or presets.preset_names():
        config = load_config(name)
        needed = peak / cost_of(config).step_flops
        with tempfile.TemporaryDirectory() as folder:
            data = data_of(name, config, Path(folder))
            loaded = rate_of(lambda indices, data=data: data[indices], len(data), min(config.train.batch, len(data)))
        row(name, f"{loaded:,.0f} of {needed:,.4g} per second", loaded / needed)


def fastest_product() -> float:
    """Return the operations per second of all cores in a large matrix product, in the faster of float32 and bfloat16.

    Measured by the clock of the process, so that other work on the machine does not make loading look fast enough.
    """
    import torch

    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4096, 4096).to(dtype)
        for _ in range(3):
            begin = time.process_time()
            x @ x
            rates.append(2 * 4096**3 / (time.process_time() - begin))
    return max(rates) * cores()


def data_of(name: str, config: Any, folder: Path) -> Any:
    """Make a dataset with the kind of files and the shape of the preset's."""
    import numpy as np
    import torch
    from PIL import Image

    from tdpm_cli.config import registry
    from tdpm_cli.data.tensor_dataset import TensorDataset
    from tdpm_cli.sampling.build import build_space

    shape = build_space(config).raw_shape
    if config.data.name == "points":
        return registry.load("dataset", "points")(None, shape, **config.data.options)
    if config.data.name not in ("images", "lsun", "celeba"):
        return TensorDataset(torch.randint(256, (ARRAYS, *shape)).byte(), shape, name)
    width, height, format = PUBLISHED.get(name, (*reversed(shape[1:]), "PNG"))
    rng = np.random.default_rng(0)
    for k in range(FILES):
        noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{k}.{format.lower()}", format)
    return registry.load("dataset", "images")(folder, shape, crop=config.data.options.get("crop", "centre"))


def rate_of(read: Callable[[list[int]], object], count: int, batch: int) -> float:
    """Return examples per second of CPU time, in random batches, over at least a second."""
    import numpy as np

    rng = np.random.default_rng(0)
    done, begin = 0, time.process_time()
    while time.process_time() - begin < 1:
        read(rng.permutation(count)[:batch].tolist())
        done += batch
    return done / (time.process_time() - begin)
