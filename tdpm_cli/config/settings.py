"""What the engine can be told, apart from what computes: presets are checked against it without PyTorch."""

from dataclasses import dataclass
from typing import Literal

from tdpm_cli.config.types import Natural, NonNegative, Positive

Prediction = Literal["eps", "x_0", "v"]
Weight = Literal["simple", "min_snr"]
AdversarialLoss = Literal["logistic", "relativistic"]
HANDED_IN = ("denoise", "x_T", "times", "schedule", "noise")  # of every sampler; what is keyword-only is an option


@dataclass(frozen=True, kw_only=True)
class AdversarialSettings:
    """How prior and discriminator play."""

    loss: AdversarialLoss = "logistic"
    r1: NonNegative = 0.1
    r2: NonNegative = 0.0
    penalty_every: Positive = 16
    weight: NonNegative = 0.1  # lambda of the prior's loss where it shares the denoiser's weights
    mismatch: NonNegative = 0.0  # weight of real examples with the condition of another, as fakes
    start: Natural = 0  # images that the denoiser sees before the game of a prior with weights of its own begins
