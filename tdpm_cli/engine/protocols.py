"""What the engine asks of the parts it is given."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import RawCondition
from tdpm_cli.engine.noise import Noise

Cond = dict[str, Tensor]  # what networks take: {} = unconditional; each tensor [B, ...]

Denoise = Callable[..., Tensor]  # (x_t [B, *shape], t [B], **cond) -> estimate of x_0 [B, *shape]
Fresh = Callable[[], Tensor]  # () -> standard normal [B, *shape]


class Prior(Protocol):
    """Maps z [B, *z_shape] to x_T [B, *shape] at exactly the noise level T; an nn.Module."""

    z_shape: tuple[int, ...]
    nfe: int  # network calls that one draw costs
    learns: bool  # whether it has weights that a game can teach
    shares: bool  # whether those weights are the denoiser's

    def __call__(self, z: Tensor, **cond: Tensor) -> Tensor: ...

    def start(self, network: nn.Module) -> None:
        """Called once when the game starts, with the denoiser's network, e.g. to begin from its weights."""


class Space(Protocol):
    """Between storage form and model form."""

    shape: tuple[int, ...]  # of x, one example
    raw_shape: tuple[int, ...]  # of raw, one example
    bounds: tuple[float, float] | None  # of x, where the data have them

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """raw [B, *raw_shape] → x [B, *shape] float32: drawn where it is random, or without a generator its mean."""

    def decode(self, x: Tensor) -> Tensor:
        """x [B, *shape] → raw [B, *raw_shape]."""


class Condition(Protocol):
    """What generation is conditioned on; `sizes` tells the networks the size of each key."""

    sizes: Mapping[str, int]  # of what networks take
    dropout: float  # share of training examples shown without their condition, for guidance
    option: str | None  # of the command line, by which the user chooses; None where there is nothing to choose

    def encode(self, given: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """What is given → tensors. Of several captions one is drawn; without a generator, the first."""

    def null(self, n: int) -> Cond:
        """The condition "nothing", n times."""

    def text_encoder(self) -> nn.Module | None:
        """A network, trained with the denoiser, that makes what networks take of what `encode` gives; or none."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """n conditions as the user would meet them."""

    def fit(self, data: Any) -> dict[str, Any]:
        """What only the data knew, as options of this part."""

    def parse(self, words: Sequence[str], n: int) -> RawCondition:
        """n conditions that go round through what the user wrote."""


def taken(given: RawCondition, positions: Sequence[int]) -> RawCondition:
    """The conditions at these positions."""
    chosen = list(positions)
    return {  # type: ignore[return-value]
        key: value[chosen] if isinstance(value, Tensor) else [value[k] for k in chosen]  # type: ignore[index]
        for key, value in given.items()
    }
