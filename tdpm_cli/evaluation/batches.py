"""Examples in batches, in order; worker processes decode and resize them if they come from files."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data import dataset
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.parent import start_worker

MIN_FOR_WORKERS = 500  # fewer images are read before worker processes would have started
MAX_WORKERS = 8
Prepare = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Batch:
    """Examples `indices` [B], their raw conditions, and the names of broken files, which the other fields leave out.

    `x` are the raw examples, or the output of an extractor's `prepare`; `raw` the raw examples, if requested.
    """

    indices: Tensor
    x: Tensor
    raw_condition: RawCondition = field(default_factory=RawCondition)
    broken: tuple[str, ...] = ()
    raw: Tensor | None = None


def batches_of(
    examples: Examples, size: int, n: int, prepare: Prepare | None = None, keep_raw: bool = False
) -> Iterator[Batch]:
    """Yield the first n examples in batches of `size`, in order. Of several processes each gets batches of its own."""
    n = min(len(examples), n)
    batches = [list(piece) for piece in dataset.pieces_of(n, size)]
    workers = min(MAX_WORKERS, cores()) if examples.on_disk and n > MIN_FOR_WORKERS else 0
    yield from DataLoader(
        _BatchDataset(examples.data, prepare, keep_raw),
        sampler=_FixedOrder(distributed.own(batches)),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=partial(start_worker, os.getpid()),
    )


class _FixedOrder(Sampler[list[int]]):
    def __init__(self, batches: Sequence[list[int]]) -> None:
        self.batches = batches

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.batches)

    def __len__(self) -> int:
        return len(self.batches)


class _BatchDataset(Dataset[Batch]):
    def __init__(self, data: dataset.Examples, prepare: Prepare | None, keep_raw: bool) -> None:
        self.data, self.prepare, self.keep_raw = data, prepare, keep_raw

    def __getitem__(self, indices: list[int]) -> Batch:
        broken: tuple[str, ...] = ()
        try:
            raw, raw_condition = self.data[indices]
        except InputError:
            indices, broken = self._without_broken(indices)
            if not indices:
                return Batch(torch.zeros(0, dtype=torch.long), torch.zeros(0), broken=broken)
            raw, raw_condition = self.data[indices]
        x = self.prepare(raw) if self.prepare else raw
        return Batch(torch.tensor(indices), x, raw_condition, broken, raw if self.keep_raw else None)

    def _without_broken(self, indices: Sequence[int]) -> tuple[list[int], tuple[str, ...]]:
        """Return the examples that can be read, and a line about each of the others."""
        readable, broken = [], []
        for k in indices:
            try:
                self.data[[k]]
                readable.append(k)
            except BadFile as error:
                broken.append(f"{error.name}: {error.reason}")
            except InputError as error:
                broken.append(str(error))
        return readable, tuple(broken)
