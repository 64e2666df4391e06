"""No condition: unconditional generation."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.errors import InputError

__all__ = ["Nothing"]


class Nothing:
    """Every condition is {}."""

    dropout = 0.0

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def encode(self, raw: Mapping[str, Tensor]) -> Cond:
        """Drop what the data set gives."""
        return {}

    def null(self, n: int) -> Cond:
        """{}."""
        return {}

    def fit(self, names: Sequence[str]) -> dict[str, Any]:
        """Nothing to learn."""
        return {}

    def parse(self, words: Sequence[str], n: int) -> Cond:
        """Raise InputError: there is nothing to choose."""
        raise InputError(f"--labels {','.join(words)}: the model was not trained on labels; leave --labels out")

    def draw(self, n: int, noise: Noise) -> Cond:
        """{}."""
        return {}
