"""Training batches in an order that depends on (seed, images seen) alone, so that a run continues exactly."""

import os
import time
from collections.abc import Generator, Iterator

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import EncodedImages, Examples, OrdersEpochs
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import leave_to_the_main_process

Item = tuple[Tensor, RawCondition]


def batches(
    data: Examples, batch: int, seed: int, seen: int, *, flip: bool, workers: int, rows: range | None = None
) -> Generator[Item, None, None]:
    """Yield (raw [batch, ...], conditions) for ever, from image `seen` on; of each batch only `rows`, where given.

    Each epoch is a new permutation of the data, of their own `order` where they have one; with `flip` of the data and
    their mirror images.
    """
    workers = min(workers, os.cpu_count() or 1)  # more would only wait for one another
    order = _Order(data, flip, batch, seed, seen, rows)
    loader = DataLoader(
        _Reader(data),
        sampler=order,
        batch_size=None,
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=torch.cuda.is_available(),
        worker_init_fn=leave_to_the_main_process,
    )
    try:
        for item in loader:
            if isinstance(item, InputError):
                raise item
            yield item
    except RuntimeError as error:  # how the loader tells of a worker that has ended
        if "DataLoader worker" not in str(error):
            raise
        raise InputError(
            f"a process that reads data was ended from outside ({error}); where memory is short, set fewer "
            "train.workers or train.cache=false"
        ) from None


class Supply:
    """The batches of a stream, and how long steps wait for them."""

    def __init__(self, stream: Iterator[Item]) -> None:
        self._stream, self._waited, self._since = stream, 0.0, time.perf_counter()

    def next(self) -> Item | InputError:
        """The next batch; or what is wrong with it, such as a damaged image, for other processes must hear of it."""
        asked = time.perf_counter()
        try:
            return next(self._stream)
        except InputError as error:
            return error
        finally:
            self._waited += time.perf_counter() - asked

    def share(self) -> float:
        """Of the time since this was last asked, the share that passed in waiting."""
        now = time.perf_counter()
        share = self._waited / (now - self._since)
        self._waited, self._since = 0.0, now
        return share


def order_from(data: Examples, batch: int, seed: int, seen: int, *, flip: bool) -> Iterator[list[int]]:
    """The indices of these batches, for ever; those from len(data) on are mirror images."""
    return iter(_Order(data, flip, batch, seed, seen))


class _Order(Sampler[list[int]]):
    def __init__(self, data: Examples, flip: bool, batch: int, seed: int, seen: int, rows: range | None = None) -> None:
        self.rows = rows or range(batch)
        self.count, self.flip, self.batch, self.seed, self.seen = len(data), flip, batch, seed, seen
        self.size = 2 * self.count if flip else self.count
        self.order = data.epoch_order() if isinstance(data, OrdersEpochs) else None

    def __iter__(self) -> Iterator[list[int]]:
        epoch, position = divmod(self.seen, self.size)
        rest = self._epoch(epoch)[position:]
        while True:
            while len(rest) < self.batch:
                epoch += 1
                rest = np.concatenate([rest, self._epoch(epoch)])
            yield rest[self.rows.start : self.rows.stop].tolist()
            rest = rest[self.batch :]

    def _epoch(self, epoch: int) -> np.ndarray:
        generator = np.random.default_rng([self.seed, epoch])
        if self.order is None:
            return generator.permutation(self.size)
        if not self.flip:
            return self.order(generator)
        mirrored = generator.integers(2, size=self.count)  # in the first pass; the others in the second
        passes = [self.order(generator), self.order(generator)]
        return np.concatenate([k + self.count * (mirrored[k] ^ second) for second, k in enumerate(passes)])


class _Reader(Dataset[Item]):
    """Reads lists of indices; those beyond the data are mirror images. Errors travel as values."""

    def __init__(self, data: Examples) -> None:
        self.data = data

    def __getitem__(self, indices: list[int]) -> Item | InputError:  # type: ignore[override]
        size = len(self.data)
        try:
            raw, cond = self.data[[k % size for k in indices]]
        except InputError as error:
            return error
        except MemoryError:
            return InputError("out of memory while reading data; set train.cache=false, or fewer train.workers")
        mirrored = torch.tensor([k >= size for k in indices])
        if mirrored.any() and isinstance(self.data, EncodedImages):
            raw[mirrored] = self.data.mirrored([k % size for k in indices if k >= size])
        elif mirrored.any():
            raw = torch.where(mirrored.view(-1, *[1] * (raw.ndim - 1)), raw.flip(-1), raw)
        return raw, cond
