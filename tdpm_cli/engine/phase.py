"""A training phase: one module, one optimizer, the losses it minimizes, and how often. `train_step` runs any list.

While a phase runs, `requires_grad` is off outside its module, so that no gradient is computed in vain. Each loss has a
backward pass of its own, so that the activations of only one loss are in memory.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tdpm_cli.config.settings import AdversarialSettings
from tdpm_cli.engine.batch import Batch

Logs = dict[str, Tensor]
Term = Callable[[Batch], tuple[Tensor, Logs]]  # batch -> the loss averaged over it, and scalars to log
Networks = Mapping[str, nn.Module]  # by "denoiser", "prior" or "discriminator", which have learning rates of their own
MakeOptimizer = Callable[[Networks], torch.optim.Optimizer]  # fused
Penalties = Callable[[int], tuple[float, float]]  # training images seen -> gamma of R1 and of R2
Autocast = Callable[[], AbstractContextManager[object]]
Average = Callable[[Sequence[nn.Parameter], Tensor], AbstractContextManager[object]]


@dataclass
class Phase:
    """One update: `optimizer` moves `module` down Σ weight · loss over `terms`, every `every` steps from `start` on."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    terms: Sequence[tuple[float, Term]]  # weight and loss; each loss logs its unweighted value
    every: int = 1  # steps
    clip: float | None = None  # largest norm of the gradient
    start: int = 0  # training images seen before the first update
    stop: int | None = None  # training images seen when the updates end
    on_start: Callable[[], None] | None = None
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())


@dataclass(frozen=True)
class PhaseSettings:
    """What an objective needs beyond the networks to make its phases."""

    adversarial: AdversarialSettings
    make_optimizer: MakeOptimizer
    clip: float | None = None  # largest norm of the gradients of denoiser and prior
    start: int = 0  # training images seen before the stage
    stop: int | None = None  # training images seen at its end


@dataclass(frozen=True)
class Machine:
    """How the machine computes a step: the number format of losses, and the means over processes.

    `average(parameters, loss)` is entered around the last backward pass of a phase. When it exits, the gradients and
    the loss are means over all processes. `gather` returns the whole of a tensor that may be sharded.
    """

    autocast: Autocast = nullcontext
    average: Average = lambda parameters, loss: nullcontext()
    gather: Callable[[Tensor], Tensor] = lambda tensor: tensor


def train_step(
    phases: Sequence[Phase], batches: Sequence[Batch], step: int, seen: int, machine: Machine | None = None
) -> Logs:
    """Run every phase that is due at `step`, after `seen` training images, and return what the losses logged.

    `batches` are the micro-batches of the step, whose gradients are averaged. An update whose loss or gradient is not
    finite is skipped; `skipped/<phase>` is then 1.
    """
    logs: Logs = {}
    size = sum(len(batch.x) for batch in batches)
    for phase in phases:
        if seen < phase.start or (phase.stop is not None and seen >= phase.stop):
            continue
        if phase.on_start and seen - (batches[0].total or size) < phase.start:
            phase.on_start()
        if step % phase.every == 0:
            for other in phases:
                other.module.requires_grad_(False)
            phase.module.requires_grad_(True)
            logs |= _update(phase, batches, machine or Machine())
    return logs


def _update(phase: Phase, batches: Sequence[Batch], machine: Machine) -> Logs:
    phase.optimizer.zero_grad(set_to_none=True)
    size, means = sum(len(batch.x) for batch in batches), Logs()
    total = torch.zeros((), device=batches[0].x.device)
    passes = [(weight, term, batch) for batch in batches for weight, term in phase.terms]
    for number, (weight, term, batch) in enumerate(passes, 1):
        share = len(batch.x) / size
        with machine.autocast():
            loss, logs = term(batch)
        total += share * weight * loss.detach()
        with machine.average(phase.parameters, total) if number == len(passes) else nullcontext():
            (share * weight * loss).backward()
        means |= {key: means.get(key, 0) + share * log for key, log in logs.items()}
    norm = machine.gather(nn.utils.clip_grad_norm_(phase.parameters, phase.clip or float("inf")))
    # A fused optimizer reads `found_inf` on the device, and skips the update if it is 1: the host does not wait.
    skipped = 1 - (torch.isfinite(total) & torch.isfinite(norm)).float()
    setattr(phase.optimizer, "found_inf", skipped)  # noqa: B010 (PyTorch's stubs do not declare it)
    phase.optimizer.step()
    return means | {f"gradient/{phase.name}": norm.detach(), f"skipped/{phase.name}": skipped}
