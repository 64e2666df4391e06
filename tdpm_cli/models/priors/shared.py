"""The denoiser's network as the prior, told apart by the time T + 1 (the paper's own choice)."""

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule

__all__ = ["Shared"]


class Shared(nn.Module):
    """x_T = network(z, T + 1), with the very weights of the denoiser."""

    nfe, learns, shares = 1, True, True

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape, self.T, self.network = tuple(shape), schedule.T, network

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map z [B, *shape] to x_T [B, *shape]."""
        return self.network(z, torch.full((z.shape[0],), self.T + 1, device=z.device), **cond)

    def start(self, network: nn.Module) -> None:
        """Nothing to begin from: the weights are the denoiser's own."""
