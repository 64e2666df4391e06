import pytest
import torch
from helpers import to_pure_noise
from torch import nn

from tdpm_cli.engine.denoiser import Denoiser, antithetic_times
from tdpm_cli.engine.schedules.linear import linear


class Oracle(nn.Module):
    """A network that gives the true prediction for a known x_0 and noise."""

    def __init__(self, schedule, prediction, x_0, noise):
        super().__init__()
        self.schedule, self.prediction, self.x_0, self.noise = schedule, prediction, x_0, noise

    def forward(self, x_t, t):
        alpha, sigma = self.schedule.coefficients(t, x_t)
        return {"eps": self.noise, "x_0": self.x_0, "v": alpha * self.noise - sigma * self.x_0}[self.prediction]


@pytest.mark.parametrize("weight", ["simple", "min_snr"])
@pytest.mark.parametrize("prediction", ["eps", "x_0", "v"])
def test_a_perfect_network_gives_x_0_and_no_loss(prediction, weight, generator):
    schedule = linear()
    x_0, noise = (torch.randn(64, 3, generator=generator, dtype=torch.float64) for _ in range(2))
    t = torch.randint(1, 1001, (64,), generator=generator)
    denoiser = Denoiser(Oracle(schedule, prediction, x_0, noise), schedule, prediction, weight)
    assert torch.allclose(denoiser(schedule.q_sample(x_0, t, noise), t), x_0, atol=1e-9)
    assert denoiser.loss(x_0, t, noise).shape == (64,)
    assert float(denoiser.loss(x_0, t, noise).abs().max()) < 1e-20


@pytest.mark.parametrize("gamma", [1.0, 5.0])
def test_min_snr_weighs_the_error_in_x_0_alike_for_every_prediction(gamma):
    # Hang et al.: whatever is predicted, the loss is min(SNR, γ) ‖x_0 - x̂_0‖².
    schedule = linear()
    t = torch.tensor([1, 50, 200, 500, 900])
    x_0, noise = torch.randn(5, 2, dtype=torch.float64), torch.randn(5, 2, dtype=torch.float64)
    x_t = schedule.q_sample(x_0, t, noise)
    for prediction in ("eps", "x_0", "v"):
        off = Oracle(schedule, prediction, x_0 + 0.3, noise - 0.2)
        denoiser = Denoiser(off, schedule, prediction, "min_snr", gamma)
        alpha_bar = schedule.alpha_bar[t]
        expected = (alpha_bar / (1 - alpha_bar)).clamp(max=gamma) * (denoiser(x_t, t) - x_0).square().mean(1)
        assert torch.allclose(denoiser.loss(x_0, t, noise), expected, rtol=1e-6)


def test_eps_is_refused_where_no_signal_is_left():
    with pytest.raises(ValueError, match=r"eps.*alpha_bar is 0"):
        Denoiser(nn.Identity(), to_pure_noise(), "eps")
    Denoiser(nn.Identity(), to_pure_noise(), "v")
    Denoiser(nn.Identity(), to_pure_noise().truncate(step=999), "eps")


@pytest.mark.parametrize("batch", [1, 2, 7, 64])
def test_times_are_uniform_on_1_to_T_in_antithetic_pairs(batch, generator):
    t = antithetic_times(batch, 5, generator, "cpu")
    assert t.shape == (batch,)
    half = (batch + 1) // 2
    assert torch.equal(t[half:], 6 - t[: batch - half])
    many = torch.cat([antithetic_times(64, 5, generator, "cpu") for _ in range(500)])
    assert (many.bincount(minlength=7)[1:6] / len(many)).tolist() == pytest.approx([0.2] * 5, abs=0.01)
