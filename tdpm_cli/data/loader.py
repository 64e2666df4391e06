"""Load training batches in an order that depends on (seed, images seen) alone, so that a run resumes exactly."""

import os
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
import torch.utils.data
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import EncodedImages, Examples, OrdersEpochs
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.parent import start_worker

Item = tuple[Tensor, RawCondition]


@dataclass(frozen=True)
class Order:
    """The order of all batches: each epoch is a new permutation of the examples, or with `flip` of them and their
    mirror images. It continues after `seen` images."""

    batch: int
    seed: int
    seen: int
    flip: bool


def batches(data: Examples, order: Order, *, workers: int, rows: range | None = None) -> Generator[Item, None, None]:
    """Yield batches (raw [batch, *shape], raw conditions) for ever, from image `order.seen` on; of each, only `rows`.

    Raises InputError for data that cannot be read, and if a worker process is killed.
    """
    workers = min(workers, cores())  # more would only compete for the cores
    loader = torch.utils.data.DataLoader(
        _Reader(data),
        sampler=_Indices(data, order, rows),
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=partial(start_worker, os.getpid()),
    )
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except RuntimeError as error:  # the loader's report of a worker that has ended
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a worker process that reads data was killed ({error}); if memory is short, lower train.workers or set "
            "train.cache=false"
        ) from None


def order_from(data: Examples, batch: int, seed: int, seen: int, *, flip: bool) -> Iterator[list[int]]:
    """Yield the indices of the same batches for ever; indices from len(data) on are mirror images."""
    return iter(_Indices(data, Order(batch, seed, seen, flip)))


class Supply:
    """The batches of a stream, and the time that training waits for them."""

    def __init__(self, stream: Iterator[Item]) -> None:
        self._stream, self._waited, self._since = stream, 0.0, time.perf_counter()

    def next(self) -> Item | InputError:
        """Return the next batch, or the error of reading it, which other processes must learn of."""
        begin = time.perf_counter()
        try:
            return next(self._stream)
        except InputError as error:
            return error
        finally:
            self._waited += time.perf_counter() - begin

    def share(self) -> float:
        """Return the share of time spent waiting since the last call."""
        now = time.perf_counter()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share


class _Indices(torch.utils.data.Sampler[list[int]]):
    def __init__(self, data: Examples, order: Order, rows: range | None = None) -> None:
        self.order, self.rows, self.count = order, rows or range(order.batch), len(data)
        self.size = 2 * self.count if order.flip else self.count
        self.epoch_order = data.epoch_order() if isinstance(data, OrdersEpochs) else None

    def __iter__(self) -> Iterator[list[int]]:
        epoch, position = divmod(self.order.seen, self.size)
        rest = self._epoch(epoch)[position:]
        while True:
            while len(rest) < self.order.batch:
                epoch += 1
                rest = np.concatenate([rest, self._epoch(epoch)])
            yield rest[self.rows.start : self.rows.stop].tolist()
            rest = rest[self.order.batch :]

    def _epoch(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.order.seed, epoch])
        if self.epoch_order is None:
            return generator.permutation(self.size)
        if not self.order.flip:
            return self.epoch_order(generator)
        mirrored = generator.integers(2, size=self.count)  # in the first of two passes; the others in the second
        passes = [self.epoch_order(generator), self.epoch_order(generator)]
        return np.concatenate([k + self.count * (mirrored[k] ^ second) for second, k in enumerate(passes)])


class _Reader(torch.utils.data.Dataset[Item]):
    """Reads lists of indices; those from len(data) on are mirror images. It returns errors instead of raising them."""

    def __init__(self, data: Examples) -> None:
        self.data = data

    def __getitem__(self, indices: list[int]) -> Item | InputError:  # type: ignore[override]
        size = len(self.data)
        try:
            raw, raw_condition = self.data[[k % size for k in indices]]
        except InputError as error:
            return error
        except MemoryError:
            return InputError("out of memory while reading data; set train.cache=false, or lower train.workers")
        mirrored = torch.tensor([k >= size for k in indices])
        if mirrored.any() and isinstance(self.data, EncodedImages):
            raw[mirrored] = self.data.mirrored([k % size for k in indices if k >= size])
        elif mirrored.any():
            raw = torch.where(mirrored.view(-1, *[1] * (raw.ndim - 1)), raw.flip(-1), raw)
        return raw, raw_condition
