"""The spectrum of data, and the nats that a truncation point asks of a prior."""

import itertools
import math

import pytest
import torch

from tdpm_cli.engine.information import nats, spectrum
from tdpm_cli.engine.schedules.linear import linear


@pytest.fixture
def schedule():
    return linear()


def test_the_spectrum_is_that_of_the_covariance(generator):
    x = torch.randn(50, 6, generator=generator) * torch.arange(1.0, 7.0)
    expected = torch.linalg.eigvalsh(torch.cov(x.double().T)).flip(0)
    assert torch.allclose(spectrum(x), expected)


def test_fewer_examples_than_numbers_have_the_same_spectrum(generator):
    x = torch.randn(5, 2, 4, generator=generator)
    expected = torch.linalg.eigvalsh(torch.cov(x.flatten(1).double().T)).flip(0)
    assert len(spectrum(x)) == 5
    assert torch.allclose(spectrum(x), expected[:5], atol=1e-12)


def test_a_mean_is_no_information():
    assert float(spectrum(torch.full((10, 3), 7.0)).sum()) == 0


def test_nats_of_gaussian_data_are_the_mutual_information():
    # I(x_0; x_t) of one Gaussian number with variance 4 in noise of variance 1: ½ log(1 + 4)
    assert nats(torch.tensor([4.0], dtype=torch.float64), 1.0, 1.0) == pytest.approx(math.log(5) / 2)
    assert nats(torch.tensor([4.0, 1.0]), 0.6, 0.8) == pytest.approx(
        sum(math.log1p(value * (0.6 / 0.8) ** 2) for value in (4, 1)) / 2
    )


def test_nats_fall_along_the_schedule(schedule):
    eigenvalues = torch.tensor([30.0, 3.0, 0.3], dtype=torch.float64)
    values = [schedule.nats(t, eigenvalues) for t in range(1, schedule.T + 1)]
    assert all(later < earlier for earlier, later in itertools.pairwise(values))


@pytest.mark.parametrize("step", [10, 300, 700])
def test_nats_of_a_step_lead_back_to_the_step(schedule, step):
    eigenvalues = torch.tensor([30.0, 3.0, 0.3], dtype=torch.float64)
    assert schedule.step_of_nats(schedule.nats(step, eigenvalues), eigenvalues) == step


@pytest.mark.parametrize("wanted", [1e-9, 1e3])
def test_nats_out_of_reach_are_rejected(schedule, wanted):
    with pytest.raises(ValueError, match=r"nats .*accepted: \S+ to \S+"):
        schedule.step_of_nats(wanted, torch.tensor([30.0, 3.0, 0.3], dtype=torch.float64))
