"""Exponential moving average of a model's weights, with a half-life in training images."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class EMA(Generic[Model]):
    """A running average of `model`, with `half_life` in training images.

    The half-life is at most `ramp` times the number of images seen, so that the average forgets the random start
    (Karras et al. 2022, appendix F.1). Weights that are shared within the model are shared in the average.
    """

    def __init__(self, model: Model, half_life: float, ramp: float | None = 0.05) -> None:
        with torch.no_grad():  # TorchScript copies weights by operations that autograd would record
            self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    def decay(self, batch: int, seen: int) -> float:
        """Return the weight of the old average after `batch` more images, `seen` in all."""
        half_life = self.half_life if self.ramp is None else min(self.half_life, self.ramp * seen)
        return 0.5 ** (batch / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def restart(self, model: Model, part: nn.Module) -> None:
        """Set the averages of the weights that `model` shares with `part` to the present weights."""
        fresh = {id(parameter) for parameter in part.parameters()}
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            if id(weight) in fresh:
                average.copy_(weight)

    @torch.no_grad()
    def copy_to(self, model: Model, part: nn.Module) -> None:
        """Set the weights that `model` shares with `part` to their averages."""
        chosen = {id(parameter) for parameter in part.parameters()}
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            if id(weight) in chosen:
                weight.copy_(average)

    @torch.no_grad()
    def update(self, model: Model, batch: int, seen: int) -> None:
        """Move the average towards `model`. Call it after all phases of a step."""
        averages: list[Tensor] = [*self.model.parameters()]
        weights: list[Tensor] = [*model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay(batch, seen))
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
