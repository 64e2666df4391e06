"""What a truncation point asks of a prior for a dataset: the spectrum of the data, computed once, and nats from it."""

import hashlib
import json
from contextlib import suppress
from pathlib import Path

import torch
from platformdirs import user_cache_path
from torch import Tensor

from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.information import spectrum
from tdpm_cli.engine.protocols import Space
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.files import write_text

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
    with suppress(OSError, ValueError, TypeError):
        return [float(value) for value in json.loads(path.read_text())]
    eigenvalues = [float(value) for value in _compute(data, space, count)]
    with suppress(OSError):  # without a cache the next run takes longer, nothing else
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(eigenvalues))
    return eigenvalues


def _compute(data: Dataset, space: Space, count: int) -> Tensor:
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    x = torch.empty((count, *space.shape))
    with ProgressBar("reading the data's covariance", count) as bar:
        for start in range(0, count, TOGETHER):
            raw, _ = data[chosen[start : start + TOGETHER]]
            x[start : start + len(raw)] = space.encode(raw)
            bar.advance(len(raw))
    return spectrum(x)


def cache_folder() -> Path:
    """Return the folder of cached spectra."""
    return user_cache_path("tdpm") / "spectra"
