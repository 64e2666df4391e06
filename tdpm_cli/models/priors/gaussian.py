"""x_T ~ N(0, I): the prior of DDPM, exact only if the schedule ends in pure noise. Nothing to train."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule

__all__ = ["Gaussian"]


class Gaussian(nn.Module):
    """x_T = z. It has nothing to learn, so training has no discriminator."""

    nfe = 0
    has_generator = False
    makes_x_0 = False
    learns = False
    shares = False

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape = tuple(shape)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Return z [B, *shape]."""
        return z

    def start(self, network: nn.Module) -> None:
        """Do nothing: there are no weights."""
