"""Examples in batches, in order, decoded and prepared by other processes where they come from files."""

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from tdpm_cli.evaluation.inputs import Examples
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.signals import leave_to_the_main_process

FEW = 500  # images that are read before other processes would have started
Prepare = Callable[[Tensor], Tensor]


@dataclass
class Batch:
    """Some examples: their numbers, raw or what an extractor's `prepare` made of it, their conditions; what was broken;
    and, where asked for, raw as it is."""

    indices: Tensor
    x: Tensor
    cond: dict[str, Any]
    broken: list[str]
    raw: Tensor | None = None


def batches_of(
    examples: Examples, batch: int, n: int | None = None, prepare: Prepare | None = None, keep_raw: bool = False
) -> Iterator[Batch]:
    """The first n examples, in order; examples whose file cannot be decoded are left out and named.

    Where several processes score together, each gets its own batches of them, for `distributed.together`.
    """
    size = min(len(examples), n or len(examples))
    chunks = [list(range(start, min(start + batch, size))) for start in range(0, size, batch)]
    workers = min(8, os.cpu_count() or 1) if examples.on_disk and size > FEW else 0
    yield from DataLoader(
        _Reader(examples.data, prepare, keep_raw),
        sampler=_Chunks(distributed.own(chunks)),
        batch_size=None,
        num_workers=workers,
        worker_init_fn=leave_to_the_main_process,
    )


class _Chunks(Sampler[list[int]]):
    def __init__(self, chunks: Sequence[list[int]]) -> None:
        self.chunks = chunks

    def __iter__(self) -> Iterator[list[int]]:
        return iter(self.chunks)

    def __len__(self) -> int:
        return len(self.chunks)


class _Reader(Dataset[Batch]):
    def __init__(self, data: Any, prepare: Prepare | None, keep_raw: bool) -> None:
        self.data, self.prepare, self.keep_raw = data, prepare, keep_raw

    def __getitem__(self, indices: list[int]) -> Batch:
        broken: list[str] = []
        try:
            raw, cond = self.data[indices]
        except InputError:  # one of them: find out which
            sound = []
            for k in indices:
                try:
                    self.data[[k]]
                    sound.append(k)
                except BadFile as error:
                    broken.append(f"{error.name}: {error.reason}")
                except InputError as error:
                    broken.append(str(error))
            if not sound:
                return Batch(torch.zeros(0, dtype=torch.long), torch.zeros(0), {}, broken)
            indices, (raw, cond) = sound, self.data[sound]
        x = self.prepare(raw) if self.prepare else raw
        return Batch(torch.tensor(indices), x, dict(cond), broken, raw if self.keep_raw else None)
