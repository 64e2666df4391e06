"""Non-finite numbers never reach the weights, and stuck adversarial training is reported."""

import json
import math
from contextlib import nullcontext

import pytest
import torch

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import load_config
from tdpm_cli.data.loader import order_from
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build, open_dataset
from tdpm_cli.training import monitor as health
from tdpm_cli.training.state import TrainerState
from tdpm_cli.training.train import train
from tdpm_cli.training.trainer import train_on

ADVERSARIAL = ["prior.name=copy", "adversarial.penalty_every=1000"]  # four phases


def spoil(monkeypatch, name, steps, gradient_only=False):
    """Make the loss of a phase, or only its gradient, not finite in some steps."""
    init = TrainerState.__init__

    def spoiled(self, *args):
        init(self, *args)
        (phase,) = (phase for phase in self.phases if phase.name == name)
        ((weight, sound),) = phase.terms

        def loss(batch):
            value, logs = sound(batch)
            if self.step not in steps:
                return value, logs
            if gradient_only:
                return value + (value - value.detach()) * math.inf, logs
            return value * math.nan, {key: log * math.nan for key, log in logs.items()}

        phase.terms = [(weight, loss)]

    monkeypatch.setattr(TrainerState, "__init__", spoiled)


def lines_of(run):
    return [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("gradient_only", [False, True])
@pytest.mark.parametrize("phase", ["denoiser", "prior", "discriminator", "penalty"])
def test_a_number_that_is_not_finite_in_any_phase_is_counted_and_named(
    tiny, tmp_path, monkeypatch, phase, gradient_only
):
    spoil(monkeypatch, phase, {0}, gradient_only)  # the one step in which all phases are due
    run = train(load_config(tiny(*ADVERSARIAL, "train.duration=96")), tmp_path, "run")
    for line in lines_of(run):
        assert [key for key in line if key.startswith("skipped/")] == [f"skipped/{phase}"]
        assert line[f"skipped/{phase}"] == 1
        assert all(math.isfinite(value) for value in line.values())
    for path in checkpoint.list_checkpoints(run)[-1].glob("*.safetensors"):
        assert all(tensor.isfinite().all() for tensor in weights.read_weights(path)[0].values())


def test_an_update_left_out_leaves_weights_and_moments_alone(tiny, tmp_path):
    config = load_config(tiny(*ADVERSARIAL))
    data, _ = open_dataset(config)
    raw, conditions = data[range(32)]
    state = TrainerState(build(config), torch.device("cpu"))
    train_on(state, raw, conditions, nullcontext)
    for phase in state.phases[:3]:
        tensors = lambda phase=phase: [
            tensor.clone() for p in phase.parameters for tensor in (p, *phase.optimizer.state[p].values())
        ]
        before, sound = tensors(), phase.terms
        phase.terms = [(math.nan, loss) for _, loss in sound]
        train_on(state, raw, conditions, nullcontext)
        assert all(map(torch.equal, before, tensors())), phase.name
        phase.terms = sound
        train_on(state, raw, conditions, nullcontext)
        assert not any(map(torch.equal, before, tensors())), phase.name


def test_many_in_a_row_stop_the_run_with_all_that_is_known(tiny, tmp_path, monkeypatch):
    spoil(monkeypatch, "discriminator", range(4, 100))
    config = load_config(tiny(*ADVERSARIAL, "train.max_skipped_steps=3", "train.snapshot=32", "train.keep=2"))
    with pytest.raises(InputError, match=r"D/fake.*gradient/discriminator.*3 steps in a row") as caught:
        train(config, tmp_path, "run")
    run = tmp_path / "run"
    report = json.loads((run / "diverged-000000256.json").read_text())  # reported one step late
    assert str(run / "diverged-000000256.json") in str(caught.value)
    assert [step["seen"] for step in report["steps"]] == [160, 192, 224]
    data, _ = open_dataset(config)
    assert report["steps"][0]["examples"] == next(order_from(data, 32, 0, 128, flip=False))
    assert all(math.isfinite(norm) for norm in report["weights"].values())
    assert any(key.startswith("discriminator") and norm == "nan" for key, norm in report["gradients"].items())
    assert checkpoint.list_checkpoints(run)[-1].name == "000000128"  # none is saved while steps are not sound


def test_numbers_are_read_one_step_late_and_averaged_over_the_finite_ones():
    figures = health.Figures({"prior": 2})
    for seen, value in enumerate([1.0, 3.0, math.nan]):
        assert len(figures.bad) == 0
        figures.add(seen, {"loss": torch.tensor(value), "skipped/prior": torch.tensor(float(math.isnan(value)))})
    assert figures.means() == {"loss": 2.0, "skipped/prior": 3.0}
    assert [step.bad for step in figures.bad] == [["loss"]]
    figures.add(3, {"loss": torch.tensor(1.0)})
    figures.read()
    assert figures.bad == []


def test_an_imbalance_is_reported_once_until_it_ends():
    balance = health.Balance(duration=10_000)
    sound, stuck = {"loss/discriminator": 1.4, "x_0/variety": 1.0}, {"loss/discriminator": 0.001, "x_0/variety": 0.01}
    reported = [balance.trouble(100 * k, stuck if k % 30 else sound) for k in range(90)]
    assert [k for k, texts in enumerate(reported) if texts] == [10, 40, 70]
    assert reported[10] == [health.SATURATION, health.COLLAPSE]
    assert health.Balance(100).trouble(0, {"loss/denoise": 0.0}) == []  # no discriminator


def test_training_warns_of_a_collapsed_prior(tiny, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(health, "COLLAPSED", 100)  # any prior
    train(load_config(tiny("train.duration=640", "train.snapshot=1M")), tmp_path, "run")
    assert capsys.readouterr().err.count("warning: by 0.32 kimg ") == 1


@pytest.mark.parametrize(("first_bad", "saved"), [(0, False), (2, True)])
def test_a_run_without_a_finite_step_does_not_end_as_done(tiny, tmp_path, monkeypatch, first_bad, saved):
    settings = [*ADVERSARIAL, "train.snapshot=32", "train.max_skipped_steps=100"]
    if saved:
        train(load_config(tiny(*settings, "train.duration=64")), tmp_path, "run")
    spoil(monkeypatch, "discriminator", range(100))
    with pytest.raises(InputError, match="000000064" if saved else "no checkpoint") as caught:
        train(load_config(tiny(*settings, f"train.duration={64 * first_bad // 2 + 96}")), tmp_path, "run")
    assert "3 steps" in str(caught.value)
    names = [path.name for path in checkpoint.list_checkpoints(tmp_path / "run")]
    assert names[-1:] == (["000000064"] if saved else [])
