"""A copy of the denoiser's network: learns apart from it; start later for a warm start."""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full

__all__ = ["Copy"]


class Copy(nn.Module):
    """x_T = network'(z, T + 1). network' copies the denoiser's weights when adversarial training starts.

    With `adversarial.start` at 0 these weights are random; later they are trained.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = False
    learns = True
    shares = False

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape, self.T, self.network = tuple(shape), schedule.T, copy.deepcopy(network)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map z [B, *shape] to x_T [B, *shape]."""
        return self.network(z, full(z, self.T + 1), **cond)

    def start(self, network: nn.Module) -> None:
        """Copy the present weights of the denoiser's network."""
        self.network.load_state_dict(network.state_dict())
