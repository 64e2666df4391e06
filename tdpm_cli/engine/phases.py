"""Training as a list of phases: who learns, from which loss, how often. One loop runs any list.

A phase learns its own module only: everything else has `requires_grad` off while it runs, so no gradient
is computed to be thrown away.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from tdpm_cli.engine.denoiser import antithetic_times
from tdpm_cli.engine.game import GameLoss, discriminator_loss, gradient_penalty, prior_loss
from tdpm_cli.engine.model import TDPM
from tdpm_cli.engine.protocols import Cond, Condition


@dataclass
class Batch:
    """One step's data and what its phases share. x [B, *shape], cond of x."""

    x: Tensor
    cond: Cond
    generator: torch.Generator | None  # None where nothing is drawn: on the device "meta"
    x_T: Tensor | None = None  # the prior's draw, detached: the discriminator's fake

    def split(self, size: int) -> "list[Batch]":
        """The same examples in micro-batches of at most `size`, which draw from the same generator in turn."""
        return [
            Batch(self.x[k : k + size], {key: value[k : k + size] for key, value in self.cond.items()}, self.generator)
            for k in range(0, len(self.x), size)
        ]

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal of `shape` on the batch's device."""
        return torch.randn(tuple(shape), generator=self.generator, device=self.x.device)


Logs = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, Logs]]  # the loss averaged over the batch, and what to log


@dataclass
class Phase:
    """One update: `optimizer` moves `module` down `loss`, every `every` steps, from `start` images on."""

    name: str
    module: nn.Module
    optimizer: torch.optim.Optimizer
    loss: Loss
    every: int = 1
    clip: float | None = None  # largest gradient norm
    start: int = 0  # images seen before this phase begins
    on_start: Callable[[], None] | None = None
    parameters: list[nn.Parameter] = field(init=False)

    def __post_init__(self) -> None:
        self.parameters = list(self.module.parameters())


def train_step(
    phases: Sequence[Phase], batches: Sequence[Batch], step: int, seen: int, autocast: Callable[[], object]
) -> Logs:
    """Run each phase that is due at `step`, when `seen` images came before these batches; return the logs.

    Gradients of several micro-batches are averaged. `autocast()` opens the context in which losses are computed.
    An update whose loss or gradient is not finite is not made, and `skipped/<phase>` is 1.
    """
    logs: Logs = {}
    size = sum(len(batch.x) for batch in batches)
    for phase in phases:
        if seen < phase.start:
            continue
        if phase.on_start and seen - size < phase.start:
            phase.on_start()
        if step % phase.every == 0:
            logs |= _update(phase, phases, batches, autocast)
    return logs


def _update(phase: Phase, phases: Sequence[Phase], batches: Sequence[Batch], autocast: Callable[[], object]) -> Logs:
    for other in phases:
        other.module.requires_grad_(False)
    phase.module.requires_grad_(True)
    phase.optimizer.zero_grad(set_to_none=True)
    size, means = sum(len(batch.x) for batch in batches), Logs()
    total = torch.zeros((), device=batches[0].x.device)
    for batch in batches:
        share = len(batch.x) / size
        with autocast():  # type: ignore[attr-defined]
            loss, logs = phase.loss(batch)
        (loss * share if share < 1 else loss).backward()
        total = total + loss.detach()
        means = {key: means.get(key, 0) + value * share for key, value in logs.items()}
    norm = nn.utils.clip_grad_norm_(phase.parameters, phase.clip or float("inf"))
    # A fused optimizer asks `found_inf` on the device whether to leave weights and moments alone: nothing waits here.
    skipped = 1 - (torch.isfinite(total) & torch.isfinite(norm)).float()
    setattr(phase.optimizer, "found_inf", skipped)  # noqa: B010 (an attribute that PyTorch's stubs do not know)
    phase.optimizer.step()
    return means | {f"gradient/{phase.name}": norm.detach(), f"skipped/{phase.name}": skipped}


def denoise_loss(model: TDPM, condition: Condition) -> Loss:
    """Σ_t of the denoising loss over t = 1..T, one antithetic draw of t for each example."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        t = antithetic_times(len(batch.x), schedule.T, batch.generator, batch.x.device)
        cond = drop(batch.cond, condition, len(batch.x), batch.generator)
        value = model.denoiser.loss(batch.x, t, batch.normal(batch.x.shape), **cond).mean()
        return value, {"loss/denoise": value.detach()}

    return loss


def adversarial_loss(model: TDPM, discriminator: nn.Module, kind: GameLoss) -> Loss:
    """The prior's loss: its x_T against the discriminator. Leaves that x_T as the discriminator's fake."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        x_T = model.prior(batch.normal([len(batch.x), *model.prior.z_shape]), **batch.cond).float()
        batch.x_T = x_T.detach()
        fake = discriminator(x_T, **batch.cond).float()
        real = torch.zeros_like(fake)
        if kind == "relativistic":
            with torch.no_grad():
                x_T_real = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape))
                real = discriminator(x_T_real, **batch.cond).float()
        value = prior_loss(kind, fake, real).mean()
        return value, {"loss/prior": value.detach()}

    return loss


def critic_loss(model: TDPM, discriminator: nn.Module, kind: GameLoss) -> Loss:
    """The discriminator's loss: x_T ~ q(x_T | x_0) as real, the prior's x_T of this step as fake."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        assert batch.x_T is not None, "the prior's phase comes first"
        x_T = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape))
        real = discriminator(x_T, **batch.cond).float()
        fake = discriminator(batch.x_T, **batch.cond).float()
        value = discriminator_loss(kind, fake, real).mean()
        spread = batch.x_T.std(0).mean() / x_T.std(0).mean()
        logs = {"loss/discriminator": value, "D/real": real.mean(), "D/fake": fake.mean(), "x_T/spread": spread}
        return value, {key: log.detach() for key, log in logs.items()}

    return loss


def penalty_loss(model: TDPM, discriminator: nn.Module, r1: float, r2: float) -> Loss:
    """R1 on real and R2 on fake x_T, each with its own gamma (0 = off)."""
    schedule = model.denoiser.schedule

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        value, logs = torch.zeros((), device=batch.x.device), Logs()
        x_T = schedule.q_sample_T(batch.x, batch.normal(batch.x.shape))
        for name, gamma, x in (("r1", r1, x_T), ("r2", r2, batch.x_T)):
            if gamma > 0:
                assert x is not None, "the prior's phase comes first"
                term = gradient_penalty(discriminator, x, gamma, **batch.cond).mean()
                value, logs[f"loss/{name}"] = value + term, term.detach()
        return value, logs

    return loss


def weighted(*terms: tuple[float, Loss]) -> Loss:
    """The sum of weight · loss; each loss logs its own, unweighted value."""

    def loss(batch: Batch) -> tuple[Tensor, Logs]:
        total, logs = torch.zeros((), device=batch.x.device), Logs()
        for weight, term in terms:
            value, log = term(batch)
            total, logs = total + weight * value, logs | log
        return total, logs

    return loss


def drop(cond: Cond, condition: Condition, n: int, generator: torch.Generator | None) -> Cond:
    """Replace a share `condition.dropout` of the n conditions by "nothing", so that guidance has both."""
    if condition.dropout == 0 or not cond:
        return cond
    device = next(iter(cond.values())).device
    dropped = torch.rand(n, generator=generator, device=device) < condition.dropout
    null = condition.null(n)
    return {
        key: torch.where(dropped.view(-1, *[1] * (value.ndim - 1)), null[key].to(value.device), value)
        for key, value in cond.items()
    }


@dataclass(frozen=True)
class Game:
    """How prior and discriminator play."""

    loss: GameLoss = "logistic"
    r1: float = 0.1
    r2: float = 0.0
    penalty_every: int = 16
    weight: float = 0.1  # lambda of the prior's loss where it shares the denoiser's weights
    start: int = 0  # images that the denoiser sees before the game begins


# From "denoiser", "prior" or "discriminator" and its module; fused, so that it can skip an update.
MakeOptimizer = Callable[[str, nn.Module], torch.optim.Optimizer]


def tdpm_phases(
    model: TDPM,
    discriminator: nn.Module | None,
    condition: Condition,
    game: Game,
    optimizer: MakeOptimizer,
    clip: float | None = None,
) -> list[Phase]:
    """The phases of one training step: denoise, prior, discriminator, penalty.

    A prior that shares the denoiser's weights learns in the denoiser's phase, from the weighted sum of both
    losses: one set of weights has one optimizer. Without a discriminator there is no game.
    """
    denoise = denoise_loss(model, condition)
    if discriminator is None or not model.prior.learns:
        return [Phase("denoiser", model.denoiser, optimizer("denoiser", model.denoiser), denoise, clip=clip)]

    adversarial = adversarial_loss(model, discriminator, game.loss)
    critic = critic_loss(model, discriminator, game.loss)
    penalty = penalty_loss(model, discriminator, game.r1, game.r2)
    if model.prior.shares:
        both = weighted((1.0, denoise), (game.weight, adversarial))
        phases = [Phase("model", model, optimizer("denoiser", model), both, clip=clip)]
    else:
        phases = [
            Phase("denoiser", model.denoiser, optimizer("denoiser", model.denoiser), denoise, clip=clip),
            Phase("prior", model.prior, optimizer("prior", model.prior), adversarial, clip=clip,
                  start=game.start, on_start=lambda: model.prior.start(model.denoiser.network)),
        ]  # fmt: skip
    of_discriminator = optimizer("discriminator", discriminator)
    if game.r1 == game.r2 == 0:
        return [*phases, Phase("discriminator", discriminator, of_discriminator, critic, start=game.start)]
    if game.penalty_every == 1:
        total = weighted((1.0, critic), (1.0, penalty))
        return [*phases, Phase("discriminator", discriminator, of_discriminator, total, start=game.start)]
    # A penalty every k steps counts k times, which keeps its strength (Karras et al. 2020, appendix B).
    lazy = weighted((float(game.penalty_every), penalty))
    return [
        *phases,
        Phase("discriminator", discriminator, of_discriminator, critic, start=game.start),
        Phase("penalty", discriminator, of_discriminator, lazy, every=game.penalty_every, start=game.start),
    ]
