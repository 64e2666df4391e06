"""One denoising step from noise, then noise to T: the prior for pretrained denoisers. Yin et al. 2024, sec. 3.1."""

import copy
from collections.abc import Mapping, Sequence

from torch import Tensor, nn

from tdpm_cli.config.settings import Prediction
from tdpm_cli.config.types import Positive
from tdpm_cli.engine.denoiser import Denoiser
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.steps import full
from tdpm_cli.runtime.errors import InputError

__all__ = ["Denoised"]


class Denoised(nn.Module):
    """x_T = alpha_T · D'(sigma_t · z, t) + sigma_T · eps. D' copies the denoiser when adversarial training starts.

    `t` is a time of the untruncated schedule at which x_t is nearly noise, but the estimate of x_0 is more than the
    mean of the data (Yin et al. 2024, sec. 3.1). The denoiser must be trained on the untruncated schedule (`--init`)
    with this `prediction`. z and eps are drawn together.
    """

    nfe = 1
    has_generator = False
    makes_x_0 = True
    learns = True
    shares = False

    def __init__(
        self, shape: Sequence[int], sizes: Mapping[str, int], schedule: Schedule, network: nn.Module, *,
        t: Positive = 430, prediction: Prediction = "eps",
    ) -> None:  # fmt: skip
        super().__init__()
        if t > schedule.untruncated.T:
            raise InputError(f"prior.t is {t}, but the untruncated schedule has {schedule.untruncated.T} steps")
        self.denoiser, self.t = Denoiser(copy.deepcopy(network), schedule.untruncated, prediction), t
        self.z_shape = (2 * shape[0], *shape[1:])
        self.schedule, self.sigma_t = schedule, schedule.untruncated.sigma(t)

    def forward(self, z: Tensor, **cond: Tensor) -> Tensor:
        """Map (z, eps) [B, 2 · shape[0], ...] to x_T [B, *shape]."""
        return self.schedule.q_sample_T(*self.x_0_and_eps(z, **cond))

    def x_0_and_eps(self, z: Tensor, **cond: Tensor) -> tuple[Tensor, Tensor]:
        """Map (z, eps) [B, 2 · shape[0], ...] to x_0 and eps, each [B, *shape]."""
        z, eps = z.chunk(2, 1)
        return self.denoiser(self.sigma_t * z, full(z, self.t), **cond), eps

    def start(self, network: nn.Module) -> None:
        """Copy the present weights of the denoiser's network."""
        self.denoiser.network.load_state_dict(network.state_dict())
