"""What a truncation point asks of a prior for a dataset: the spectrum of the data, computed once, and nats from it."""

import hashlib
import json
import math
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.config import registry
from tdpm_cli.data.auto_preset import look_at
from tdpm_cli.data.dataset import Dataset, FromImageFiles
from tdpm_cli.engine.information import spectrum
from tdpm_cli.engine.protocols import Space
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.runtime import caches, distributed
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text

PROPOSED = (25.0, 32.0, 40.0)  # nats, for short training
SIDE = 32  # of images, for a proposal
EXAMPLES = 4096  # drawn at random, whose covariance is computed
NUMBERS = 2**27  # in all examples together: 512 MiB
TOGETHER = 64  # examples that are read at a time
CACHE_FORMAT = 1


def eigenvalues_of(data: Dataset, space: Space) -> Tensor:
    """Return the eigenvalues of the covariance of x, in descending order; float64. From the cache if it has them."""
    return distributed.from_first(lambda: torch.tensor(_cached(data, space), dtype=torch.float64))


def _cached(data: Dataset, space: Space) -> list[float]:
    numbers = torch.Size(space.shape).numel()
    count = min(len(data), EXAMPLES, max(NUMBERS // numbers, 2))
    key = [CACHE_FORMAT, data.fingerprint(), list(space.shape), type(space).__name__, count]
    path = cache_folder() / f"{hashlib.sha256(json.dumps(key).encode()).hexdigest()}.json"

    def read(path: Path) -> list[float]:
        eigenvalues = [float(value) for value in json.loads(path.read_text())]
        if len(eigenvalues) != numbers or not all(map(math.isfinite, eigenvalues)):
            raise ValueError(f"{len(eigenvalues)} eigenvalues; expected {numbers}, all finite")
        return eigenvalues

    compute = lambda: [float(value) for value in _compute(data, space, count)]
    return caches.cached(path, read, compute, lambda path, eigenvalues: write_text(path, json.dumps(eigenvalues)))


def _compute(data: Dataset, space: Space, count: int) -> Tensor:
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    x = torch.empty((count, *space.shape))
    with ProgressBar("reading the data's covariance", count) as bar:
        for start in range(0, count, TOGETHER):
            raw, _ = data[chosen[start : start + TOGETHER]]
            x[start : start + len(raw)] = space.encode(raw)
            bar.advance(len(raw))
    return spectrum(x)


def describe_truncation(path: Path) -> dict[str, str]:
    """Return where the linear schedule would be truncated for images, by what that asks of a prior.

    Images are brought to at most `SIDE` pixels: what is left out adds little at these points.
    """
    make_dataset = registry.load("dataset", registry.recognise(path, "images"))
    dataset: Dataset = make_dataset(path, None)
    info = look_at(dataset)
    side = min(info.side, SIDE)
    shape = [info.channels, side, side] if isinstance(dataset, FromImageFiles) else [*dataset.shape]
    space = registry.load("space", "pixels")(shape=shape)
    try:
        eigenvalues = eigenvalues_of(make_dataset(path, space.raw_shape), space)
        schedule: Schedule = registry.load("schedule", "linear")()
        steps = {wanted: schedule.step_of_nats(wanted, eigenvalues) for wanted in PROPOSED}
    except (InputError, ValueError) as error:  # a damaged image, or equal images
        return {"truncation": f"unknown: {error}"}
    texts = [f"{wanted:g} nats at sigma {schedule.sigma(step):.2g} (step {step})" for wanted, step in steps.items()]
    return {"truncation": "; ".join(texts)}


def cache_folder() -> Path:
    """Return the folder of cached spectra."""
    return caches.cache_folder("spectra")
