"""The sections of a preset that hold settings: pydantic models, one field a key, a docstring a field."""

from typing import Annotated, Literal

from annotated_types import Ge, Interval, Len, MinLen
from pydantic import BaseModel, ConfigDict, Field

from tdpm_cli.config.types import (
    Count,
    ExternalPath,
    Fraction,
    Natural,
    NonNegative,
    Positive,
    PositiveCount,
    PositiveFloat,
    WithUnit,
)

Prediction = Literal["eps", "x_0", "v"]
Weight = Literal["simple", "min_snr"]
Precision = Literal["auto", "fp32", "bf16"]
Betas = Annotated[list[Annotated[float, Interval(ge=0, lt=1)]], Len(2, 2)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]


class Section(BaseModel):
    """A section of settings: frozen, strict about types, and closed to unknown keys."""

    model_config = ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False, use_attribute_docstrings=True
    )


class DenoiserConfig(Section):
    """What the denoiser predicts and how its loss is weighted."""

    prediction: Prediction = "eps"
    """What the network predicts: noise, clean data, or velocity."""
    weight: Weight = "simple"
    """Weight of the loss over time: simple, or min-SNR."""
    gamma: PositiveFloat = 5.0
    """Upper bound of the signal-to-noise ratio in min-SNR weights."""


class AdversarialSettings(Section):
    """How the prior and the discriminator are trained against each other."""

    loss: str = "logistic"
    """Adversarial loss of the prior and the discriminator."""
    r1: NonNegative = 0.1
    """Weight of the gradient penalty on real data."""
    r2: NonNegative = 0.0
    """Weight of the gradient penalty on generated data."""
    penalty_every: Positive = 16
    """Steps between gradient penalties."""
    penalty_decay: Annotated[float, Ge(1)] = 1.0
    """Factor by which r1 and r2 fall during a stage."""
    weight: NonNegative = 0.1
    """Weight of the adversarial loss where the prior shares the denoiser's weights."""
    mismatch: NonNegative = 0.0
    """Weight of real data with a wrong condition, counted as generated."""
    start: Count = 0
    """Training images before adversarial training starts."""


class StageConfig(Section):
    """One stage of training. A key that is left out has the value of section train."""

    objective: str
    """What this stage minimizes."""
    duration: PositiveCount
    """Length of this stage in images."""
    denoiser_lr: PositiveFloat | None = None
    """Learning rate of the denoiser in this stage."""
    prior_lr: PositiveFloat | None = None
    """Learning rate of the prior in this stage."""
    discriminator_lr: PositiveFloat | None = None
    """Learning rate of the discriminator in this stage."""
    prior_betas: Betas | None = None
    """Adam's betas of the prior in this stage."""
    warmup: Count | None = None
    """Images over which this stage's learning rates rise."""
    cooldown: Fraction | None = None
    """Final fraction of this stage over which learning rates fall."""


class TrainConfig(Section):
    """How long and how the model is trained. Durations count training images."""

    duration: PositiveCount
    """Length of training in images, such as 200k or 2M."""
    stages: list[StageConfig] = Field(default_factory=list)
    """Stages of training, in order; without any, one of `objective`."""
    init: ExternalPath | None = None
    """Trained denoiser to start from; see `tdpm train --init`."""
    init_prior: ExternalPath | None = None
    """Trained generator to start the prior from."""
    objective: str = "tdpm"
    """What training minimizes: tdpm, denoise, likelihood or adversarial."""
    batch: Annotated[int, Ge(2)] = 128
    """Images in a training step."""
    batch_gpu: Annotated[int, Ge(2)] | None = None
    """Images computed at a time; must divide the batch."""
    seed: Seed = 0
    """Seed of all randomness."""
    precision: Precision = "auto"
    """Number format: fp32, bf16, or auto for the faster one."""
    compile: bool = False
    """Compile the network with torch.compile."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass to save memory."""
    shard: bool = False
    """Shard weights, moments and averages across processes."""
    cache: bool = True
    """Keep decoded images in memory if they fit."""
    workers: Natural = 0
    """Processes that load data; 0 loads in the training process."""
    flip: bool = False
    """Mirror training images at random."""
    denoiser_lr: PositiveFloat = 2e-4
    """Learning rate of the denoiser and of a shared prior."""
    prior_lr: PositiveFloat = 2e-5
    """Learning rate of a prior with its own weights."""
    discriminator_lr: PositiveFloat = 2e-3
    """Learning rate of the discriminator."""
    denoiser_betas: Betas = Field(default_factory=lambda: [0.9, 0.999])
    """Adam's betas for the denoiser."""
    adversarial_betas: Betas = Field(default_factory=lambda: [0.0, 0.99])
    """Adam's betas for adversarial training."""
    adversarial_betas_end: Betas | None = None
    """Adam's betas for adversarial training at the end of a stage."""
    warmup: Count = 0
    """Images over which learning rates rise linearly from zero."""
    cooldown: Fraction = 0.0
    """Final fraction of training over which learning rates fall to zero."""
    clip: PositiveFloat | None = None
    """Maximum norm of the gradient."""
    ema: Annotated[list[Count], MinLen(1)] = Field(default_factory=lambda: [500_000])
    """Half-lives of the weight averages, in images."""
    ema_ramp: PositiveFloat | None = 0.05
    """Limits each half-life to this fraction of the images seen."""
    snapshot: PositiveCount = 200_000
    """Images between checkpoints."""
    log: PositiveCount = 4_000
    """Images between lines of the log."""
    keep: Annotated[int, Ge(2)] = 2
    """Checkpoints to keep."""
    score: bool = False
    """Score each checkpoint by section eval and keep the best."""
    max_skipped_steps: Positive = 10
    """Consecutive steps with non-finite gradients before training stops."""
    on_save_error: Literal["stop", "continue"] = "stop"
    """If a checkpoint cannot be written: stop or continue."""
    tensorboard: bool = False
    """Write a log for TensorBoard."""

    @property
    def stages_in_order(self) -> list[StageConfig]:
        """The stages; without `stages`, one of `objective` for the whole duration."""
        return self.stages or [StageConfig(objective=self.objective, duration=self.duration)]


class SampleConfig(Section):
    """How to draw samples; options of the command line take precedence."""

    steps: Positive = 4
    """Reverse steps from the truncation point."""
    spacing: Annotated[float, Ge(1)] = 1.0
    """Spacing of steps: 1 even, 2 finer near data."""
    sampler: str = "ddim"
    """Sampler of the reverse steps."""
    options: dict[str, float] = Field(default_factory=dict)
    """Options of the sampler, such as eta of ddim."""
    guidance_scale: PositiveFloat = 1.0
    """Classifier-free guidance of the steps; 1 turns it off."""
    prior_guidance_scale: PositiveFloat = 1.0
    """Classifier-free guidance of the prior; 1 turns it off."""
    precision: Precision = "auto"
    """Number format: fp32, bf16, or auto for the faster one."""
    batch: Positive = 256
    """Samples computed at a time."""


class EvalConfig(Section):
    """How to score samples; options of the command line take precedence."""

    features: str = "inception"
    """Network whose features are compared."""
    n: Annotated[int, Ge(2), WithUnit()] = 50_000
    """Samples to score."""
    batch: Positive = 64
    """Images computed at a time."""
