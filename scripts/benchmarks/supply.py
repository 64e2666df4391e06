"""Whether loading keeps up with training, for every preset.

What training needs is bounded from above: the rate at which this machine's fastest matrix product, on all its cores,
would do the operations of training on one image. No real step is as fast. Loading is timed in one process: arrays from
memory, files as the published ones are, but of noise, which decodes slowest.
"""

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from scripts.benchmarks.timing import machine, row

# (width, height, format) of the files that a preset's data are published as; others are taken as PNGs of its shape.
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
    from tdpm_cli.config import presets, schema
    from tdpm_cli.training.cost import cost_of

    peak = fastest_product()
    print(f"{machine()}: {peak / 1e9:.0f} GFLOP a second at most")
    for name in names or presets.preset_names():
        config = schema.load_config(name)
        needed = peak / cost_of(config).step_flops
        with tempfile.TemporaryDirectory() as place:
            data = data_of(name, config, Path(place))
            loaded = rate_of(lambda chosen, data=data: data[chosen], len(data), min(config.train.batch, len(data)))
        row(name, f"{loaded:,.0f} of {needed:,.4g} a second", loaded / needed)


def fastest_product() -> float:
    """Operations a second that all cores would do, were each as fast as in a large matrix product, in the faster of
    float32 and bfloat16; by the processor's clock, so that other work on the machine does not flatter loading."""
    import torch

    rates = []
    for dtype in (torch.float32, torch.bfloat16):
        x = torch.randn(4096, 4096).to(dtype)
        for _ in range(3):
            begin = time.process_time()
            x @ x
            rates.append(2 * 4096**3 / (time.process_time() - begin))
    return max(rates) * len(os.sched_getaffinity(0))


def data_of(name: str, config: Any, place: Path) -> Any:
    """Data like the preset's, at its shape."""
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
        Image.fromarray(noise).save(place / f"{k}.{format.lower()}", format)
    return registry.load("dataset", "images")(place, shape, crop=config.data.options.get("crop", "centre"))


def rate_of(read: Callable[[list[int]], object], count: int, batch: int) -> float:
    """Examples a second of this process's time, in batches of random ones, over at least a second."""
    import numpy as np

    rng = np.random.default_rng(0)
    done, begin = 0, time.process_time()
    while time.process_time() - begin < 1:
        read(rng.permutation(count)[:batch].tolist())
        done += batch
    return done / (time.process_time() - begin)
