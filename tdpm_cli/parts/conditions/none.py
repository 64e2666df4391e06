"""No condition: unconditional generation."""

from collections.abc import Mapping

from torch import Tensor

from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond

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

    def draw(self, n: int, noise: Noise) -> Cond:
        """{}."""
        return {}
