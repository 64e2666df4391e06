import math
from itertools import pairwise

import pytest
import torch
from helpers import to_pure_noise

from tdpm_cli.config import registry
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.schedules.linear import linear

SCHEDULES = {name: registry.load("schedule", name) for name in registry.names("schedule")}


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_starts_with_clean_data_and_only_gets_noisier(name):
    schedule = SCHEDULES[name]()
    assert schedule.T == 1000
    assert schedule.alpha_bar.dtype == torch.float64
    assert schedule.alpha(0) == 1
    assert schedule.sigma(0) == 0
    assert bool((schedule.alpha_bar.diff() < 0).all())
    assert schedule.alpha_bar[-1] >= 0
    assert all(schedule.alpha(t) ** 2 + schedule.sigma(t) ** 2 == pytest.approx(1, abs=1e-12) for t in (1, 500, 1000))


def test_linear_is_ddpms():
    # β_1 = 1e-4, β_2 = 1e-4 + (0.02 - 1e-4)/999; index 100 (0-based) of ᾱ is t = 101 here.
    schedule = linear()
    assert 1 - schedule.alpha_bar[1] == pytest.approx(1e-4)
    assert 1 - schedule.alpha_bar[2] / schedule.alpha_bar[1] == pytest.approx(1e-4 + 0.0199 / 999)
    assert float(schedule.alpha_bar[101]) == pytest.approx(0.8951, abs=5e-5)
    assert float(schedule.alpha_bar[501]) == pytest.approx(0.0778, abs=5e-5)


def test_cosine_follows_its_curve():
    cosine = SCHEDULES["cosine"]()
    level = lambda t: math.cos((t / 1000 + 0.008) / 1.008 * math.pi / 2) ** 2
    assert float(cosine.alpha_bar[500]) == pytest.approx(level(500) / level(0), rel=1e-9)


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("step", [1, 7, 100, 999])
def test_a_truncation_point_is_the_same_in_every_unit(name, step):
    schedule = SCHEDULES[name]()
    by_step = schedule.truncate(step=step)
    assert step == by_step.T
    assert torch.equal(by_step.alpha_bar, schedule.alpha_bar[: step + 1])
    assert step == schedule.truncate(sigma=schedule.sigma(step)).T
    assert step == schedule.truncate(log_snr=schedule.log_snr(step)).T


@pytest.mark.parametrize(
    "point",
    [
        {"step": 0},
        {"step": 1001},
        {"sigma": 1e-9},
        {"sigma": 1.0},
        {"log_snr": 99.0},
        {},
        {"step": 3, "sigma": 0.5},
    ],
)
def test_a_truncation_point_outside_the_schedule_is_rejected(point):
    with pytest.raises(ValueError, match=r"accepted|exactly one"):
        linear().truncate(**point)


@pytest.mark.parametrize("unit", ["sigma", "log_snr"])
@pytest.mark.parametrize("steps", [1, 2, 1000])
@pytest.mark.parametrize("name", SCHEDULES)
def test_the_bounds_that_a_refusal_states_are_accepted(name, steps, unit):
    schedule = SCHEDULES[name](steps=steps)
    with pytest.raises(ValueError, match="accepted: ") as caught:
        schedule.truncate(**{unit: 1e9})
    low, high = map(float, str(caught.value).split("accepted: ")[1].split(" to "))
    assert {schedule.truncate(**{unit: bound}).T for bound in (low, high)} <= set(range(1, steps + 1))


def test_a_schedule_is_truncated_where_no_signal_is_left():
    assert to_pure_noise().truncate(log_snr=-math.inf).T == 1000


@pytest.mark.parametrize("spacing", [1, 1.3, 2, 7])
@pytest.mark.parametrize("T", [1, 2, 3, 10, 37, 100, 1000])
def test_respacing_walks_from_T_to_0_in_any_number_of_steps(T, spacing):
    schedule = linear().truncate(step=T)
    for steps in range(1, T + 1, max(T // 50, 1)):
        times = schedule.respace(steps, spacing)
        assert len(times) == steps + 1
        assert times[0] == T
        assert times[-1] == 0
        assert all(a > b for a, b in pairwise(times))
    assert schedule.respace(T, spacing) == list(range(T, -1, -1))
    for steps in (0, T + 1):
        with pytest.raises(ValueError, match=f"accepted: 1 to {T}"):
            schedule.respace(steps)


def test_steps_are_shorter_near_the_data_by_the_power_of_their_number():
    schedule = linear().truncate(step=100)
    assert schedule.respace(4) == [100, 75, 50, 25, 0]
    assert schedule.respace(4, 2) == [100, 56, 25, 6, 0]


def test_q_sample_has_the_mean_and_spread_it_states(generator):
    schedule = linear().truncate(step=300)
    x_0 = torch.full((200_000, 1), 2.0)
    noise = torch.randn(x_0.shape, generator=generator)
    x_t = schedule.q_sample(x_0, torch.full((len(x_0),), 300), noise)
    assert float(x_t.mean()) == pytest.approx(2 * schedule.alpha(300), abs=5e-3)
    assert float(x_t.std()) == pytest.approx(schedule.sigma(300), abs=5e-3)
    assert torch.allclose(x_t, schedule.q_sample_T(x_0, noise))
    assert torch.equal(schedule.q_sample(x_0, torch.zeros(len(x_0), dtype=torch.long), noise), x_0)


@pytest.mark.parametrize("table", [[1.0], [0.9, 0.5], [1.0, 0.5, 0.5], [1.0, -0.1]])
def test_what_is_no_schedule_is_rejected(table):
    with pytest.raises(ValueError, match=r"alpha_bar"):
        Schedule(torch.tensor(table))
