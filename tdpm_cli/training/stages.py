"""The stages of training: when each starts and stops, and its learning rates."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tdpm_cli.config.settings import TrainConfig


@dataclass(frozen=True)
class Stage:
    """One stage. `start` and `stop` count training images of the whole run; `rates` and `betas` are by network."""

    number: int
    objective: str
    start: int
    stop: int
    rates: Mapping[str, float]
    betas: Mapping[str, tuple[float, float]]
    betas_end: Mapping[str, tuple[float, float]]  # at the end of the stage, of the networks whose betas change
    warmup: int
    cooldown: float
    prefix: str  # of the names of its optimizers

    @property
    def text(self) -> str:
        """What the stage trains and how long, for the user."""
        return f"{self.objective}: {(self.stop - self.start) / 1000:g} kimg"

    def betas_at(self, network: str, seen: int) -> tuple[float, float]:
        """Return Adam's betas for the step after `seen` images: 1 - beta changes geometrically to the stage's end."""
        begin, end = self.betas[network], self.betas_end.get(network)
        if end is None:
            return begin
        share = min(max((seen - self.start) / (self.stop - self.start), 0.0), 1.0)
        first, second = (1 - (1 - a) ** (1 - share) * (1 - b) ** share for a, b in zip(begin, end, strict=True))
        return first, second

    def pace(self, seen: int, batch: int) -> float:
        """Return the share of the full learning rates for the step after `seen` images: up, constant, down."""
        rising = (seen - self.start + batch) / self.warmup if self.warmup else 1.0
        cooldown = self.cooldown * (self.stop - self.start)
        falling = (self.stop - seen) / cooldown if cooldown else 1.0
        return max(min(rising, falling, 1.0), 0.0)


def stages_of(settings: TrainConfig) -> list[Stage]:
    """Return the stages of a run in order; without `train.stages` there is one, of `train.objective`."""
    stages, start = list[Stage](), 0
    for number, stage in enumerate(settings.stages_in_order):
        rates = {
            "denoiser": stage.denoiser_lr or settings.denoiser_lr,
            "prior": stage.prior_lr or settings.prior_lr,
            "discriminator": stage.discriminator_lr or settings.discriminator_lr,
        }
        betas = {
            "denoiser": _pair(settings.denoiser_betas),
            "prior": _pair(stage.prior_betas or settings.adversarial_betas),
            "discriminator": _pair(settings.adversarial_betas),
        }
        changing = ["discriminator", *(["prior"] if stage.prior_betas is None else [])]
        end = settings.adversarial_betas_end
        betas_end = {network: _pair(end) for network in changing} if end else {}
        warmup = settings.warmup if stage.warmup is None else stage.warmup
        cooldown = settings.cooldown if stage.cooldown is None else stage.cooldown
        stop = start + stage.duration
        prefix = f"{number}-{stage.objective}-" if settings.stages else ""
        stages.append(Stage(number, stage.objective, start, stop, rates, betas, betas_end, warmup, cooldown, prefix))
        start = stop
    return stages


def _pair(betas: Sequence[float]) -> tuple[float, float]:
    return float(betas[0]), float(betas[1])
