"""Samplers against what is known exactly: the Gaussian posterior, and denoisers of Gaussian data."""

import math

import pytest
import torch
from helpers import to_pure_noise

from tdpm_cli.config import registry
from tdpm_cli.engine.guidance import clipped, guided
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.schedules.cosine import cosine
from tdpm_cli.engine.schedules.linear import linear

MEAN, STD = 0.7, 0.5  # of Gaussian data


def gaussian_denoiser(schedule):
    """E[x_0 | x_t] for data N(MEAN, STD²), exact."""

    def denoise(x_t, t):
        alpha, sigma = schedule.coefficients(t, x_t)
        gain = alpha * STD**2 / (alpha**2 * STD**2 + sigma**2)
        return MEAN + gain * (x_t - alpha * MEAN)

    return denoise


def flow(schedule, x_T):
    """Where the probability-flow ODE takes x_T: it keeps the standardised value."""
    alpha, sigma = schedule.alpha(schedule.T), schedule.sigma(schedule.T)
    return MEAN + STD * (x_T - alpha * MEAN) / math.sqrt(alpha**2 * STD**2 + sigma**2)


def fixed_noise(shape, seed=3):
    generator = torch.Generator().manual_seed(seed)
    return lambda: torch.randn(shape, generator=generator, dtype=torch.float64)


def run(name, schedule, x_T, steps, denoise=None, **options):
    denoise = denoise or gaussian_denoiser(schedule)
    return registry.load("sampler", name)(
        denoise, x_T, schedule.respace(steps), schedule, noise=fixed_noise(x_T.shape), **options
    )


@pytest.mark.parametrize("steps", [1, 2, 4, 50, 400])
def test_ddim_with_eta_1_is_the_ddpm_posterior(steps):
    schedule = linear().truncate(step=400)
    x_T = torch.randn(100, 2, dtype=torch.float64)
    assert torch.allclose(run("ddim", schedule, x_T, steps, eta=1.0), run("ddpm", schedule, x_T, steps), atol=1e-10)


@pytest.mark.parametrize(("t", "s"), [(400, 399), (400, 200), (5, 0), (1, 0)])
def test_one_ddpm_step_has_the_mean_and_variance_of_the_posterior(t, s):
    # Bayes by hand: q(x_s | x_t, x_0) ∝ N(x_s; a_s x_0, σ_s²) N(x_t; a x_s, b), a = a_t/a_s, b = 1 - a².
    schedule, x_0, x_t = linear(), 0.4, 1.3
    a = schedule.alpha(t) / schedule.alpha(s)
    b = 1 - a**2
    if s == 0:
        mean, variance = x_0, 0.0
    else:
        precision = 1 / schedule.sigma(s) ** 2 + a**2 / b
        mean = (schedule.alpha(s) * x_0 / schedule.sigma(s) ** 2 + a * x_t / b) / precision
        variance = 1 / precision
    count = 200_000
    noise = fixed_noise((count,))
    denoise = lambda x, t: torch.full_like(x, x_0)
    out = registry.load("sampler", "ddpm")(
        denoise, torch.full((count,), x_t, dtype=torch.float64), [t, s], schedule, noise=noise
    )
    assert float(out.mean()) == pytest.approx(mean, abs=3e-3)
    assert float(out.var()) == pytest.approx(variance, abs=3e-3)


def test_large_variance_is_beta_and_the_last_step_adds_none():
    schedule, count = linear(), 200_000
    x_t = torch.full((count,), 1.3, dtype=torch.float64)
    denoise = lambda x, t: torch.full_like(x, 0.4)
    out = registry.load("sampler", "ddpm_large")(denoise, x_t, [400, 200], schedule, noise=fixed_noise((count,)))
    beta = 1 - (schedule.alpha(400) / schedule.alpha(200)) ** 2
    assert float(out.var()) == pytest.approx(beta, rel=0.02)
    last = registry.load("sampler", "ddpm_large")(denoise, x_t, [5, 0], schedule, noise=fixed_noise((count,)))
    assert torch.allclose(last, torch.full_like(last, 0.4))


@pytest.mark.parametrize(("name", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_order_of_convergence(name, order):
    # Between log-SNR 4 and -2, in steps even in log-SNR, the time in which the solvers' order is stated; the last,
    # infinite step to the data stays out of it.
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)

    def error(steps):
        alpha_bar = torch.linspace(4, -2, steps + 1, dtype=torch.float64).sigmoid()
        schedule = Schedule(torch.cat([torch.ones(1, dtype=torch.float64), alpha_bar]))
        marginal = lambda t: math.sqrt(schedule.alpha(t) ** 2 * STD**2 + schedule.sigma(t) ** 2)
        kept = (x_T - schedule.alpha(schedule.T) * MEAN) / marginal(schedule.T)
        exact = schedule.alpha(1) * MEAN + marginal(1) * kept
        times = list(range(schedule.T, 0, -1))
        out = registry.load("sampler", name)(gaussian_denoiser(schedule), x_T, times, schedule, noise=None)
        return float((out - exact).abs().max())

    rate = math.log2(error(32) / error(128)) / 2
    assert rate == pytest.approx(order, abs=0.15)


@pytest.mark.parametrize("name", ["ddim", "dpmpp_2m"])
def test_deterministic_samplers_reach_the_flow(name):
    schedule = linear().truncate(step=600)
    x_T = torch.linspace(-2, 2, 9, dtype=torch.float64)
    assert torch.allclose(run(name, schedule, x_T, 600), flow(schedule, x_T), atol=5e-3)


@pytest.mark.parametrize("name", ["ddim", "ddpm", "ddpm_large"])
@pytest.mark.parametrize("point", [50, 400])
def test_from_real_x_T_the_data_come_back(name, point):
    schedule = linear().truncate(step=point)
    generator = torch.Generator().manual_seed(1)
    draw = lambda: torch.randn(50_000, generator=generator, dtype=torch.float64)
    x_T = schedule.q_sample_T(MEAN + STD * draw(), draw())
    out = run(name, schedule, x_T, point)
    assert float(out.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(out.std()) == pytest.approx(STD, abs=0.015)


@pytest.mark.parametrize("name", registry.names("sampler"))
@pytest.mark.parametrize("T", [1, 2, 3, 50])
def test_any_number_of_steps_from_1_to_T_with_one_call_each(name, T):
    schedule = linear().truncate(step=T)
    exact, x_T = gaussian_denoiser(schedule), torch.randn(4, 2, dtype=torch.float64)
    for steps in {1, 2, T - 1, T} - {0}:
        if steps > T:
            continue
        calls = []

        def denoise(x, t, calls=calls):
            calls.append(int(t[0]))
            return exact(x, t)

        out = run(name, schedule, x_T, steps, denoise)
        assert calls == schedule.respace(steps)[:-1]
        assert out.isfinite().all()
        if steps == 1:
            assert torch.allclose(out, exact(x_T, torch.full((4,), T)))


@pytest.mark.parametrize("name", registry.names("sampler"))
@pytest.mark.parametrize("make", [to_pure_noise, cosine])
def test_chains_that_end_in_pure_noise_are_walked_too(name, make):
    schedule = make(steps=40)
    out = run(name, schedule, torch.randn(4, 2, dtype=torch.float64), 10)
    assert out.isfinite().all()


def test_guidance_is_linear_in_its_scale_and_off_at_1():
    denoise = lambda x, t, label: x * 0 + label[:, None].double()
    null, cond = {"label": torch.tensor([10, 10])}, {"label": torch.tensor([1, 3])}
    x, t = torch.zeros(2, 1, dtype=torch.float64), torch.tensor([1, 1])
    assert guided(denoise, null, 1.0) is denoise
    for scale in (0.0, 0.5, 2.0, 3.0):
        out = guided(denoise, null, scale)(x, t, **cond)
        assert out[:, 0].tolist() == pytest.approx([10 + scale * (1 - 10), 10 + scale * (3 - 10)])


def test_clipping_bounds_the_estimate_of_x_0():
    denoise = lambda x, t: x * 10
    assert clipped(denoise, (-1, 1))(torch.tensor([-3.0, 0.05, 3.0]), None).tolist() == [-1, 0.5, 1]
    assert clipped(denoise, None) is denoise
