"""No condition: unconditional generation."""

from collections.abc import Sequence
from typing import Any

import torch

from tdpm_cli.config.types import RawCondition
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Nothing"]


class Nothing:
    """Every condition is {}."""

    dropout, option = 0.0, None

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def encode(self, given: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Drop what the data set gives."""
        return {}

    def null(self, n: int) -> Cond:
        """{}."""
        return {}

    def fit(self, data: Any) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def parse(self, words: Sequence[str], n: int) -> RawCondition:
        """Raise InputError: there is nothing to choose."""
        raise InputError(f"{', '.join(words)}: the model is unconditional; there is nothing to choose")

    def text_encoder(self) -> None:
        """Networks take it as it is."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """{}."""
        return {}
