"""The denoiser's network at time T + 1 generates x_0, then noise to T: adds exact noise, unlike `shared`."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full

__all__ = ["SharedX0"]


class SharedX0(nn.Module):
    """x_T = alpha_T · network(z, T + 1) + sigma_T · eps, with the weights of the denoiser.

    The noise at T is exact by construction, so the adversarial loss concerns the data alone.
    z and eps are drawn together.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = True
    learns = True
    shares = True

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape, self.schedule, self.network = (2 * shape[0], *shape[1:]), schedule, network

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, 2 · shape[0], ...] to x_T [B, *shape]."""
        return self.schedule.q_sample_T(*self.x_0_and_eps(z, **cond))

    def x_0_and_eps(self, z: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map (z, eps) [B, 2 · shape[0], ...] to x_0 and eps, each [B, *shape]."""
        z, eps = z.chunk(2, 1)
        return self.network(z, full(z, self.schedule.T + 1), **cond), eps

    def start(self, network: nn.Module) -> None:
        """Do nothing: the weights are the denoiser's."""
