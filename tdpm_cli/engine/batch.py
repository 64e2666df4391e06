"""The examples of one training step, and the random numbers that belong to them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tdpm_cli.engine.protocols import Cond, Condition


@dataclass
class Batch:
    """Examples x [B, *shape] with their conditions `cond`: those of a whole step, or some rows of it.

    Random numbers are drawn for all `total` examples of the step, and rows from `first` on are used. So a step is the
    same however its examples are divided into micro-batches and among processes.
    """

    x: Tensor
    cond: Cond
    generator: torch.Generator | None  # None on the device "meta", where nothing is drawn
    first: int = 0
    total: int | None = None  # None: the batch is the whole step
    seen: int = 0  # training images before this step
    x_T: Tensor | None = None  # samples of the prior, detached: the discriminator's fake examples

    def split(self, size: int) -> "list[Batch]":
        """Divide the examples into micro-batches of at most `size`."""
        total = self.total or len(self.x)
        return [
            Batch(
                self.x[k : k + size], {key: value[k : k + size] for key, value in self.cond.items()},
                _copy(self.generator), self.first + k, total, self.seen,
            )
            for k in range(0, len(self.x), size)
        ]  # fmt: skip

    def draw(self, sample: Callable[[int], Tensor]) -> Tensor:
        """Return the rows of `sample(total)` that belong to these examples."""
        return sample(self.total or len(self.x))[self.first : self.first + len(self.x)]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw a standard normal [B, *shape] on the batch's device."""
        return self.draw(lambda n: torch.randn((n, *shape), generator=self.generator, device=self.x.device))


def drop_conditions(batch: Batch, condition: Condition) -> Batch:
    """Replace a share `condition.dropout` of the conditions by "nothing", as classifier-free guidance needs.

    Ho and Salimans 2022, algorithm 1; here it serves the guidance of both denoiser and prior.
    """
    if condition.dropout == 0 or not batch.cond:
        return batch
    device = batch.x.device
    dropped = batch.draw(lambda n: torch.rand(n, generator=batch.generator, device=device)) < condition.dropout
    null = condition.null(len(batch.x))
    cond = {
        key: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[key].to(value.device), value)
        for key, value in batch.cond.items()
    }
    return replace(batch, cond=cond)


def _copy(generator: torch.Generator | None) -> torch.Generator | None:
    return generator and torch.Generator(generator.device).set_state(generator.get_state())
