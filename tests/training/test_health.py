"""A collapse of the prior shows in the variety of its x_0, beside the data's."""

import pytest
import torch
from helpers import tiny_image_preset

from tdpm_cli.config import load_config
from tdpm_cli.sampling.build import build, open_dataset
from tdpm_cli.training.health import Variety, variety
from tdpm_cli.training.monitor import COLLAPSED
from tdpm_cli.training.state import TrainerState

PRIORS = {
    "light": {"prior": {"name": "light", "channels": [8]}},
    "shared": {},
}


class Repeats(torch.nn.Module):
    """A prior of exact noise around a few images, in turn."""

    def __init__(self, images, prior, schedule):
        super().__init__()
        self.images, self.schedule = images, schedule
        self.z_shape, self.makes_x_0 = prior.z_shape, prior.makes_x_0

    def x_0_and_eps(self, z, **cond):
        x_0 = self.images[torch.arange(len(z)) % len(self.images)]
        return x_0, torch.randn(x_0.shape, generator=torch.Generator().manual_seed(1))

    def forward(self, z, **cond):
        return self.schedule.q_sample_T(*self.x_0_and_eps(z))


@pytest.fixture(params=PRIORS)
def trained(request):
    """The state of a run whose denoiser is exact for data that are themselves Gaussian, and the data."""
    config = load_config({**tiny_image_preset(), **PRIORS[request.param]})
    data, config = open_dataset(config)
    return TrainerState(build(config), torch.device("cpu")), data


@pytest.mark.parametrize(("images", "low", "high"), [(1, 0.0, 0.01), (4, 0.0, COLLAPSED), (64, 0.8, 1.25)])
def test_variety_is_that_of_the_images(trained, images, low, high):
    state, data = trained
    model = state.components.model
    if not model.prior.makes_x_0:
        model.denoiser.forward = lambda x_T, t, **cond: exact(x_T)
    x = state.components.space.encode(data[range(64, 128)][0])
    exact_images = state.components.space.encode(data[range(128)][0])

    def exact(x_T):
        """The nearest image of the data: the estimate of a denoiser that knows them by heart."""
        alpha = model.denoiser.schedule.alpha(model.denoiser.schedule.T)
        nearest = torch.cdist(x_T.flatten(1), alpha * exact_images.flatten(1)).argmin(1)
        return exact_images[nearest]

    model.prior = Repeats(x[:images], model.prior, model.denoiser.schedule)
    assert low <= Variety(state, data).measure() <= high


def test_measuring_changes_no_random_number(trained):
    state, data = trained
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Variety(state, data).measure()
    assert torch.equal(torch.rand(3), expected)


def test_variety_of_equal_images_is_zero():
    assert variety(torch.ones(8, 1, 4, 4)) == 0
