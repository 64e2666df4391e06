"""Interfaces of the components that the engine computes with."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import RawCondition, Value
from tdpm_cli.engine.noise import Noise

if TYPE_CHECKING:
    from tdpm_cli.engine.phase import Phase, PhaseSettings
    from tdpm_cli.engine.tdpm import TDPM

Cond = dict[str, Tensor]  # a condition, each tensor [B, ...]; {} = unconditional

Denoise = Callable[..., Tensor]  # (x_t [B, *shape], t [B], **cond) -> estimate of x_0 [B, *shape]
DrawNoise = Callable[[], Tensor]  # () -> standard normal [B, *shape]


class Prior(Protocol):
    """Maps z [B, *z_shape] to x_T [B, *shape], at exactly the noise level T. An `nn.Module`."""

    z_shape: tuple[int, ...]
    nfe: int  # network calls for one x_T
    learns: bool  # whether the adversarial loss can train it
    shares: bool  # whether its weights are the denoiser's
    has_generator: bool  # whether x_T = alpha_T generator(z) + sigma_T eps, with a vector z of `latent` numbers
    makes_x_0: bool  # whether it has a method `x_0_and_eps` of the same arguments, from which x_T follows

    def __call__(self, z: Tensor, **cond: Tensor) -> Tensor: ...

    def start(self, network: nn.Module) -> None:
        """Prepare for the first adversarial update, e.g. copy the weights of the denoiser's network."""


class Discriminator(Protocol):
    """Maps x_T [B, *shape] to logits [B], which are positive for data. An `nn.Module`, twice differentiable."""

    group: int  # neighbouring examples whose logits depend on one another; 1 = none

    def __call__(self, x: Tensor, **cond: Tensor) -> Tensor: ...


class Encoder(Protocol):
    """Maps x_0 [B, *shape] to mean and log-variance [B, latent] of q(z | x_0). An `nn.Module`."""

    def __call__(self, x: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]: ...


class AdversarialLoss(Protocol):
    """Losses [B] of prior and discriminator as functions of the discriminator's logits [B]."""

    prior_uses_real: bool  # whether the prior's loss depends on `real`; if not, `real` is 0 there

    def prior(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the prior's loss [B]."""

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        """Return the discriminator's loss [B]."""


class Components(Protocol):
    """The networks that an objective trains."""

    @property
    def model(self) -> TDPM: ...

    @property
    def discriminator(self) -> nn.Module | None: ...

    @property
    def encoder(self) -> nn.Module | None: ...

    @property
    def condition(self) -> Condition: ...


class Objective(Protocol):
    """What training minimizes: an ordered list of phases. Its phases run one after another in every step."""

    needs_discriminator: bool  # whether it trains a prior that learns against a discriminator
    needs_encoder: bool  # whether there must be an encoder, and a prior that makes x_0 of a vector z
    needs_own_prior: bool  # whether the prior must have weights of its own that learn

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        """Return the phases of a step, in order."""


class Space(Protocol):
    """Converts examples between the form of storage, `raw`, and the form of networks, `x`."""

    shape: tuple[int, ...]  # of one x
    raw_shape: tuple[int, ...]  # of one raw example
    bounds: tuple[float, float] | None  # of the values of x; None = unbounded

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """raw [B, *raw_shape] → x float32 [B, *shape]. A random encoding draws from `generator`, or is the mean."""

    def decode(self, x: Tensor) -> Tensor:
        """x [B, *shape] → raw [B, *raw_shape]."""


class ConditionedExamples(Protocol):
    """Training data, as a condition sees them."""

    @property
    def class_names(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def raw_condition(self, indices: Sequence[int]) -> RawCondition: ...


class Condition(Protocol):
    """What generation depends on; `sizes` gives the networks the size of each tensor of a condition."""

    sizes: Mapping[str, int]  # of the tensors that networks receive
    dropout: float  # share of the training examples shown without their condition, for guidance
    option: str | None  # the command-line option that chooses conditions; None = there is none

    def encode(self, raw_condition: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Turn a condition into tensors. Of several captions `generator` draws one; without it, the first is used."""

    def null(self, n: int) -> Cond:
        """Return the condition "nothing", n times."""

    def text_encoder(self) -> nn.Module | None:
        """Return a network, trained with the denoiser, from tensors of `encode` to inputs of networks; or None."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Draw n conditions as users would choose them."""

    def fit(self, dataset: ConditionedExamples) -> Mapping[str, Value]:
        """Return the options of this component that depend on the training data."""

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Return n conditions that repeat the labels or prompts of the user."""
