"""x_T ~ N(0, I): the prior of DDPM, right only where the chain ends in pure noise."""

from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.engine.schedule import Schedule

__all__ = ["Gaussian"]


class Gaussian(nn.Module):
    """z itself. It has nothing to learn, so training has no game."""

    nfe, learns, shares = 0, False, False

    def __init__(self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module) -> None:
        super().__init__()
        self.z_shape = tuple(shape)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Return z [B, *shape]."""
        return z

    def start(self, network: nn.Module) -> None:
        """Nothing to begin from."""
