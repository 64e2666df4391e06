"""No condition: unconditional generation."""

from collections.abc import Sequence

import torch

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Unconditional"]


class Unconditional:
    """Every condition is {}."""

    dropout, option = 0.0, None

    def __init__(self) -> None:
        self.sizes: dict[str, int] = {}

    def encode(self, raw_condition: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Ignore the conditions of the data."""
        return {}

    def null(self, n: int) -> Cond:
        """Return {}."""
        return {}

    def text_encoder(self) -> None:
        """Return None."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Return {}."""
        return {}

    def fit(self, dataset: Dataset) -> dict[str, object]:
        """Return {}."""
        return {}

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Raise InputError: an unconditional model has no choice."""
        raise InputError(f"{', '.join(texts)}: the model is unconditional; leave out labels and prompts")
