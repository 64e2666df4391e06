"""Exponential moving average of a model's weights, its half-life counted in training images."""

import copy
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn

Model = TypeVar("Model", bound=nn.Module)


class EMA(Generic[Model]):
    """A running copy of `model` with `half_life` in training images.

    While few images were seen the half-life is `ramp` times that number, so that the average forgets the
    random start (Karras et al. 2022, appendix F.1). Weights used in several places stay one set of weights.
    """

    def __init__(self, model: Model, half_life: float, ramp: float | None = 0.05) -> None:
        with torch.no_grad():  # TorchScript copies weights by operations that autograd would follow
            self.model: Model = copy.deepcopy(model).eval().requires_grad_(False)
        self.half_life, self.ramp = half_life, ramp

    def decay(self, batch: int, seen: int) -> float:
        """Share of the old average kept after `batch` images, `seen` images in all."""
        half_life = self.half_life if self.ramp is None else min(self.half_life, self.ramp * seen)
        return 0.5 ** (batch / half_life) if half_life > 0 else 0.0

    @torch.no_grad()
    def restart(self, model: Model, part: nn.Module) -> None:
        """Forget the past of the weights that `model` shares with `part`: their average is what they are now."""
        fresh = {id(parameter) for parameter in part.parameters()}
        for average, weight in zip(self.model.parameters(), model.parameters(), strict=True):
            if id(weight) in fresh:
                average.copy_(weight)

    @torch.no_grad()
    def update(self, model: Model, batch: int, seen: int) -> None:
        """Move the average towards `model`, after every phase of a step."""
        averages: list[Tensor] = [*self.model.parameters()]
        weights: list[Tensor] = [*model.parameters()]
        torch._foreach_lerp_(averages, weights, 1 - self.decay(batch, seen))
        for average, buffer in zip(self.model.buffers(), model.buffers(), strict=True):
            average.copy_(buffer)
