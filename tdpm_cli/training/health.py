"""How varied the prior's examples are, beside the data's: what reveals a collapse.

It is measured on x_0, because the noise in x_T makes even a prior of a single image look varied.
"""

from functools import cached_property

import torch
from torch import Tensor

from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.steps import full
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.training.state import TrainerState

EXAMPLES = 64


class Variety:
    """Compares the variety of the prior's examples with that of as many training examples."""

    def __init__(self, state: TrainerState, data: Dataset) -> None:
        self.state, self.data = state, data

    @cached_property
    def _examples(self) -> tuple[Tensor, Cond]:
        """The first training examples, as x and their conditions: read once, and only if the prior learns."""
        components, device = self.state.components, self.state.device
        raw, raw_condition = self.data[range(min(EXAMPLES, len(self.data)))]
        cond = components.condition.encode({**raw_condition, "raw": raw})
        return components.space.encode(raw.to(device)), {key: value.to(device) for key, value in cond.items()}

    def measure(self) -> float:
        """Return the prior's variety over the data's, with the present weights. Draws from a generator of its own."""
        state = self.state
        generator = torch.Generator(state.device).manual_seed(state.seed(state.seen))
        with torch.no_grad(), devices.autocast(state.settings.precision, state.device)():
            real, fake = clean_pair(state.components.model, *self._examples, generator)
        return variety(fake) / max(variety(real), 1e-12)


def clean_pair(model: TDPM, x: Tensor, cond: Cond, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return data and as many examples of the prior, both [B, *shape], without the noise of T.

    For a prior that makes x_0, they are x and its x_0. For another one, they are the denoiser's estimates of x_0 from
    x_T, of both data and prior.
    """
    prior, denoiser = model.prior, model.denoiser
    cond = denoiser.encode_condition(cond)
    z = torch.randn(len(x), *prior.z_shape, generator=generator, device=x.device)
    if prior.makes_x_0:
        return x, prior.x_0_and_eps(z, **cond)[0].float()
    eps = torch.randn(x.shape, generator=generator, device=x.device)
    t = full(x, denoiser.schedule.T)
    real, fake = (denoiser(x_T, t, **cond) for x_T in (denoiser.schedule.q_sample_T(x, eps), prior(z, **cond)))
    return real.float(), fake.float()


def variety(x: Tensor) -> float:
    """Return the mean Euclidean distance of an example of x [B, *shape] to the nearest other one.

    It is 0 where all examples are equal, and small where they repeat a few, whose variance may be that of the data.
    """
    distances = torch.cdist(x.flatten(1), x.flatten(1), compute_mode="donot_use_mm_for_euclid_dist")
    distances.fill_diagonal_(torch.inf)
    return float(distances.min(1).values.mean())
