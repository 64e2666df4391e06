"""How varied the prior's examples are, beside the data's: what reveals a collapse.

It is measured on estimates of x_0, because the noise in x_T makes even a prior of a single image look varied.
"""

import torch
from torch import Tensor

from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device
from tdpm_cli.training.state import TrainerState

EXAMPLES = 64


class Variety:
    """Compares the variety of the prior's examples with that of some training examples.

    Variety is the mean distance of an example to the nearest other one. It is 0 for a prior of one image, and small for
    one of a few, where the variance would hardly differ from the data's. All examples are the denoiser's estimates of
    x_0 from x_T, for prior and data alike.
    """

    def __init__(self, state: TrainerState, data: Dataset) -> None:
        self.state = state
        raw, raw_condition = data[range(min(EXAMPLES, len(data)))]
        components = state.components
        self.x = components.space.encode(raw.to(state.device))
        cond = components.condition.encode({**raw_condition, "raw": raw})
        self.cond = {key: value.to(state.device) for key, value in cond.items()}

    def measure(self) -> float:
        """Return the prior's variety over the data's, with the present weights. It draws from a generator of its own."""
        state, model = self.state, self.state.components.model
        generator = torch.Generator(state.device).manual_seed(state.seed(state.seen, 0, EXAMPLES))
        normal = lambda *shape: torch.randn(len(self.x), *shape, generator=generator, device=state.device)
        with torch.no_grad(), device.autocast(state.settings.precision, state.device)():
            cond = model.denoiser.encode_condition(self.cond)
            real = model.denoiser.schedule.q_sample_T(self.x, normal(*self.x.shape[1:]))
            fake = model.prior(normal(*model.prior.z_shape), **cond).float()
            of_real, of_fake = (variety(estimate(model, x_T, cond)) for x_T in (real, fake))
        return of_fake / max(of_real, 1e-12)


def estimate(model: TDPM, x_T: Tensor, cond: dict[str, Tensor]) -> Tensor:
    """Return the denoiser's estimate of x_0 from x_T [B, *shape]."""
    t = torch.full((len(x_T),), model.denoiser.schedule.T, device=x_T.device)
    return model.denoiser(x_T, t, **cond).float()


def variety(x: Tensor) -> float:
    """Return the mean Euclidean distance of an example of x [B, *shape] to the nearest other one."""
    distances = torch.cdist(x.flatten(1), x.flatten(1))
    distances.fill_diagonal_(torch.inf)
    return float(distances.min(1).values.mean())
