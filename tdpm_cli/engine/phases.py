"""Training as a list of phases: who learns, from which losses, how often. One loop runs any list.

A phase learns its own module only: everything else has `requires_grad` off while it runs, so no gradient
is computed to be thrown away. Each of its losses has a backward pass of its own, so that the activations of one loss
at a time are kept.
"""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from tdpm_cli.config.settings import AdversarialLoss, AdversarialSettings
from tdpm_cli.engine.denoiser import antithetic_times
from tdpm_cli.engine.losses import discriminator_loss, gradient_penalty, prior_loss
from tdpm_cli.engine.protocols import Cond, Condition
from tdpm_cli.engine.tdpm import TDPM


@dataclass
class Batch:
    """A step's data, or some rows of it, and what the phases share. x [B, *shape], cond of x.

    Random numbers are drawn for all `total` examples of the step, of which these are the rows from `first` on: it is
    the same step however its examples are divided among micro-batches and processes.
    """

    x: Tensor
    cond: Cond
    generator: torch.Generator | None  # None where nothing is drawn: on the device "meta"
    first: int = 0
    total: int | None = None  # None = these are all
    x_T: Tensor | None = None  # the prior's draw, detached: the discriminator's fake

    def split(self, size: int) -> "list[Batch]":
        """The same examples in micro-batches of at most `size`."""
        total = self.total or len(self.x)
        return [
            Batch(
                self.x[k : k + size], {key: value[k : k + size] for key, value in self.cond.items()},
                _copied(self.generator), self.first + k, total,
            )
            for k in range(0, len(self.x), size)
        ]  # fmt: skip

    def own(self, draw: Callable[[int], Tensor]) -> Tensor:
        """These examples' rows of `draw(total)`."""
        return draw(self.total or len(self.x))[self.first : self.first + len(self.x)]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal [B, *shape] on the batch's device."""
        return self.own(lambda n: torch.randn((n, *shape), generator=self.generator, device=self.x.device))


def _copied(generator: torch.Generator | None) -> torch.Generator | None:
    return generator and torch.Generator(generator.device).set_state(generator.get_state())


Logs = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, Logs]]  # the loss averaged over the batch, and what to log
Context = Callable[[], AbstractContextManager[object]]
Averaged = Callable[[Sequence[nn.Parameter], Tensor], AbstractContextManager[object]]


@dataclass
class Phase:
    """One update: `optimizer` moves `module` down the sum of weight · loss over `terms`, every `every` steps, from
    `start` images on. Each loss logs its own, unweighted value."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    terms: Sequence[tuple[float, Loss]]
    every: int = 1
    clip: float | None = None  # largest gradient norm
    start: int = 0  # images seen before this phase begins
    on_start: Callable[[], None] | None = None
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())


def alone(parameters: Sequence[nn.Parameter], loss: Tensor) -> AbstractContextManager[object]:
    """`averaged` of `train_step` where there is one process."""
    return nullcontext()


def train_step(
    phases: Sequence[Phase],
    batches: Sequence[Batch],
    step: int,
    seen: int,
    autocast: Context = nullcontext,
    averaged: Averaged = alone,
) -> Logs:
    """Run each phase that is due at `step`, when `seen` images came before these batches; return the logs.

    Gradients of several micro-batches are averaged. `autocast()` opens the context in which losses are computed;
    `averaged(parameters, loss)` that of a phase's last backward pass, at whose end gradients and loss are their means
    over processes. An update whose loss or gradient is not finite is not made, and `skipped/<phase>` is 1.
    """
    logs: Logs = {}
    size = sum(len(batch.x) for batch in batches)
    for phase in phases:
        if seen < phase.start:
            continue
        if phase.on_start and seen - (batches[0].total or size) < phase.start:
            phase.on_start()
        if step % phase.every == 0:
            logs |= _update(phase, phases, batches, autocast, averaged)
    return logs


def _update(
    phase: Phase, phases: Sequence[Phase], batches: Sequence[Batch], autocast: Context, averaged: Averaged
) -> Logs:
    for other in phases:
        other.module.requires_grad_(False)
    phase.module.requires_grad_(True)
    phase.optimizer.zero_grad(set_to_none=True)
    size, means = sum(len(batch.x) for batch in batches), Logs()
    total = torch.zeros((), device=batches[0].x.device)
    passes = [(weight, loss, batch) for batch in batches for weight, loss in phase.terms]
    for number, (weight, loss, batch) in enumerate(passes, 1):
        share = len(batch.x) / size
        with autocast():
            value, logs = loss(batch)
        total += share * weight * value.detach()
        with averaged(phase.parameters, total) if number == len(passes) else nullcontext():
            (share * weight * value).backward()
        means |= {key: means.get(key, 0) + share * log for key, log in logs.items()}
    norm = nn.utils.clip_grad_norm_(phase.parameters, phase.clip or float("inf"))
    norm = getattr(norm, "full_tensor", lambda: norm)()  # of sharded weights
    # A fused optimizer asks `found_inf` on the device whether to leave weights and moments alone: nothing waits here.
    skipped = 1 - (torch.isfinite(total) & torch.isfinite(norm)).float()
    setattr(phase.optimizer, "found_inf", skipped)  # noqa: B010 (an attribute that PyTorch's stubs do not know)
    phase.optimizer.step()
    return means | {f"gradient/{phase.name}": norm.detach(), f"skipped/{phase.name}": skipped}


def denoise_loss(model: TDPM) -> Loss:
    """Σ_t of the denoising loss over t = 1..T, one antithetic draw of t for each example."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        t = batch.own(lambda n: antithetic_times(n, schedule.T, batch.generator, batch.x.device))
        cond = model.denoiser.encode_condition(batch.cond)
        value = model.denoiser.loss(batch.x, t, batch.normal(batch.x.shape[1:]), **cond).mean()
        return value, {"loss/denoise": value.detach()}

    return loss


@torch.no_grad()
def embedded_condition(model: TDPM, cond: Cond) -> Cond:
    """What networks take of a condition, in the game: what reads it learns from the denoising loss alone."""
    return model.denoiser.encode_condition(cond)


def adversarial_loss(model: TDPM, discriminator: nn.Module, kind: AdversarialLoss) -> Loss:
    """The prior's loss: its x_T against the discriminator. Leaves that x_T as the discriminator's fake."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        cond = embedded_condition(model, batch.cond)
        x_T = model.prior(batch.normal(model.prior.z_shape), **cond).float()
        batch.x_T = x_T.detach()
        fake = discriminator(x_T, **cond).float()
        real = torch.zeros_like(fake)
        if kind == "relativistic":
            with torch.no_grad():
                x_T_real = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:]))
                real = discriminator(x_T_real, **cond).float()
        value = prior_loss(kind, fake, real).mean()
        return value, {"loss/prior": value.detach()}

    return loss


def critic_loss(model: TDPM, discriminator: nn.Module, kind: AdversarialLoss) -> Loss:
    """The discriminator's loss: x_T ~ q(x_T | x_0) as real, the prior's x_T of this step as fake."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        assert batch.x_T is not None, "the prior's phase comes first"
        x_T, cond = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:])), embedded_condition(model, batch.cond)
        real = discriminator(x_T, **cond).float()
        fake = discriminator(batch.x_T, **cond).float()
        value = discriminator_loss(kind, fake, real).mean()
        spread = batch.x_T.std(0).mean() / x_T.std(0).mean()
        logs = {"loss/discriminator": value, "D/real": real.mean(), "D/fake": fake.mean(), "x_T/spread": spread}
        return value, {key: log.detach() for key, log in logs.items()}

    return loss


def mismatch_loss(model: TDPM, discriminator: nn.Module, condition: Condition) -> Loss:
    """Real x_T with the condition of another example, as a fake: the discriminator is to look at conditions (Reed et
    al. 2016, algorithm 1). Examples whose neighbour has the same condition, or "nothing", which fits all, do not count.
    """
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        x_T = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:]))
        other = {key: value.roll(1, 0) for key, value in batch.cond.items()}
        null = {key: value.to(batch.x.device) for key, value in condition.null(len(batch.x)).items()}
        differs = ~_alike(other, batch.cond) & ~_alike(other, null)
        value = (softplus(discriminator(x_T, **embedded_condition(model, other)).float()) * differs).mean()
        return value, {"loss/mismatch": value.detach()}

    return loss


def _alike(first: Cond, second: Cond) -> Tensor:
    """Which examples have the same condition in both: bool [B]."""
    same = [(value == second[key]).reshape(len(value), -1).all(1) for key, value in first.items()]
    return torch.stack(same).all(0)


def penalty_loss(model: TDPM, discriminator: nn.Module, r1: float, r2: float) -> Loss:
    """R1 on real and R2 on fake x_T, each with its own gamma (0 = off)."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        value, logs, cond = torch.zeros((), device=batch.x.device), Logs(), embedded_condition(model, batch.cond)
        x_T = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape[1:]))
        for name, gamma, x in (("r1", r1, x_T), ("r2", r2, batch.x_T)):
            if gamma > 0:
                assert x is not None, "the prior's phase comes first"
                term = gradient_penalty(discriminator, x, gamma, **cond).mean()
                value, logs[f"loss/{name}"] = value + term, term.detach()
        return value, logs

    return loss


def drop(batch: Batch, condition: Condition) -> Batch:
    """The batch with a share `condition.dropout` of conditions replaced by "nothing", so that guidance, of the denoiser
    and of the prior, has both."""
    if condition.dropout == 0 or not batch.cond:
        return batch
    device = batch.x.device
    dropped = batch.own(lambda n: torch.rand(n, generator=batch.generator, device=device)) < condition.dropout
    null = condition.null(len(batch.x))
    cond = {
        key: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[key].to(value.device), value)
        for key, value in batch.cond.items()
    }
    return replace(batch, cond=cond)


# From "denoiser", "prior" or "discriminator" and its module; fused, so that it can skip an update.
MakeOptimizer = Callable[[str, nn.Module], torch.optim.Optimizer]


def tdpm_phases(
    model: TDPM,
    discriminator: nn.Module | None,
    condition: Condition,
    adversarial: AdversarialSettings,
    optimizer: MakeOptimizer,
    clip: float | None = None,
) -> list[Phase]:
    """The phases of one training step: denoise, prior, discriminator, penalty.

    A prior that shares the denoiser's weights learns in the denoiser's phase, from the weighted sum of both
    losses: one set of weights has one optimizer. Without a discriminator there is no game.
    """
    denoise = (1.0, denoise_loss(model))
    if discriminator is None or not model.prior.learns:
        return [Phase("denoiser", model.denoiser, optimizer("denoiser", model.denoiser), [denoise], clip=clip)]

    of_prior = adversarial_loss(model, discriminator, adversarial.loss)
    critic = [(1.0, critic_loss(model, discriminator, adversarial.loss))]
    critic += [(adversarial.mismatch, mismatch_loss(model, discriminator, condition))] if adversarial.mismatch else []
    penalty = penalty_loss(model, discriminator, adversarial.r1, adversarial.r2)
    if model.prior.shares:
        both = [denoise, (adversarial.weight, of_prior)]
        phases = [Phase("model", model, optimizer("denoiser", model), both, clip=clip)]
    else:
        phases = [
            Phase("denoiser", model.denoiser, optimizer("denoiser", model.denoiser), [denoise], clip=clip),
            Phase("prior", model.prior, optimizer("prior", model.prior), [(1.0, of_prior)], clip=clip,
                  start=adversarial.start, on_start=lambda: model.prior.start(model.denoiser.network)),
        ]  # fmt: skip
    of_discriminator = optimizer("discriminator", discriminator)
    if adversarial.r1 == adversarial.r2 == 0:
        return [*phases, Phase("discriminator", discriminator, of_discriminator, critic, start=adversarial.start)]
    if adversarial.penalty_every == 1:
        total = [*critic, (1.0, penalty)]
        return [*phases, Phase("discriminator", discriminator, of_discriminator, total, start=adversarial.start)]
    # A penalty every k steps counts k times, which keeps its strength (Karras et al. 2020, appendix B).
    lazy = [(float(adversarial.penalty_every), penalty)]
    return [
        *phases,
        Phase("discriminator", discriminator, of_discriminator, critic, start=adversarial.start),
        Phase(
            "penalty", discriminator, of_discriminator, lazy, every=adversarial.penalty_every, start=adversarial.start
        ),
    ]
