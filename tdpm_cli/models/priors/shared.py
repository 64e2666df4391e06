"""The denoiser's network at time T + 1: the default, and the paper's choice. Zheng et al. 2023."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full

__all__ = ["Shared"]


class Shared(nn.Module):
    """x_T = network(z, T + 1), with the weights of the denoiser."""

    nfe = 1
    has_generator = False
    makes_x_0 = False
    learns = True
    shares = True

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape, self.T, self.network = tuple(shape), schedule.T, network

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map z [B, *shape] to x_T [B, *shape]."""
        return self.network(z, full(z, self.T + 1), **cond)

    def start(self, network: nn.Module) -> None:
        """Do nothing: the weights are the denoiser's."""
