"""A time budget: the lengths of stages, and that a run keeps those that it was begun with."""

import json

import pytest

from tdpm_cli.cli import main
from tdpm_cli.config import load_config
from tdpm_cli.config.presets import read_yaml
from tdpm_cli.config.types import parse_seconds
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.training import train as training
from tdpm_cli.training.budget import lengths_within


@pytest.mark.parametrize("speeds", [[100.0, 50.0, 80.0], [900.0, 900.0, 900.0]])
def test_stages_fill_the_time_and_keep_their_proportions(speeds):
    preset = [72_000, 48_000, 400_000]
    lengths = lengths_within(3600, preset, speeds, 64)
    assert sum(length / speed for length, speed in zip(lengths, speeds, strict=True)) == pytest.approx(3600, rel=0.05)
    assert all(length % 64 == 0 for length in lengths)
    factors = [length / original for length, original in zip(lengths, preset, strict=True)]
    assert factors == pytest.approx([factors[0]] * 3, rel=0.05)


def test_a_budget_that_is_too_short_names_one_that_is_not():
    with pytest.raises(InputError, match=r"--budget 10 s.*stage 2") as caught:
        lengths_within(10, [72_000, 480, 400_000], [100.0, 100.0, 100.0], 64)
    needed = float(str(caught.value).rsplit("at least ", 1)[1].split()[0])
    assert min(lengths_within(needed + 1, [72_000, 480, 400_000], [100.0, 100.0, 100.0], 64)) >= 64


@pytest.mark.parametrize(("text", "seconds"), [("90s", 90), ("10min", 600), ("1.5h", 5400), ("2d", 172_800)])
def test_times_have_units(text, seconds):
    assert parse_seconds(text) == seconds


@pytest.mark.parametrize("text", ["10", "10m", "-3s", "0s", "1h30min", "soon", ""])
def test_a_budget_that_is_no_time_is_rejected(text, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["tdpm", "train", "--preset", "digits", f"--budget={text}", "--dry-run"])
    with pytest.raises(SystemExit) as caught:
        main()
    assert caught.value.code == 2
    assert "--budget" in capsys.readouterr().err


STAGES = [{"objective": "denoise", "duration": 640}, {"objective": "adversarial", "duration": 320}]


@pytest.fixture
def staged(tiny):
    """A config in two stages, and what measures their speed: 64 and 32 images a second."""
    plain = tiny("prior.name=copy", "train.snapshot=32", "train.duration=960")
    return load_config({**plain, "train": {**plain["train"], "stages": STAGES}})


@pytest.fixture
def speeds(monkeypatch):
    """The speeds that a measurement finds, and how often it was made."""
    measured = []
    monkeypatch.setattr(training, "stage_speeds", lambda state, data: measured.append(1) or [64.0, 32.0])
    return measured


def lengths_of(run):
    train = read_yaml((run / "config.yaml").read_text(), "config.yaml")["train"]
    return [stage["duration"] for stage in train["stages"]], train["duration"]


def test_a_run_within_a_budget_continues_with_its_own_lengths(staged, speeds, tmp_path):
    run = training.train(staged, tmp_path, "run", budget=4)  # 20 s at these speeds: a fifth of each stage
    assert lengths_of(run) == ([128, 64], 192)
    assert training.train(staged, tmp_path, "run", budget=400) == run
    assert lengths_of(run) == ([128, 64], 192)
    assert len(speeds) == 1
    stages = [json.loads(line)["stage"] for line in (run / "log.jsonl").read_text().splitlines()]
    assert stages == [1] * 4 + [2] * 2


def test_a_budget_sets_the_duration_without_stages(tiny, speeds, tmp_path, monkeypatch):
    monkeypatch.setattr(training, "stage_speeds", lambda state, data: [64.0])
    run = training.train(load_config(tiny()), tmp_path, "run", budget=2)
    assert read_yaml((run / "config.yaml").read_text(), "config.yaml")["train"]["duration"] == 128


def test_measuring_leaves_the_weights_of_the_run(staged, tmp_path):
    measured = training.prepare(staged, tmp_path, "run", "auto", budget=60)
    plain = training.prepare(staged, tmp_path, "run", "auto")
    for one, other in zip(
        measured.state.components.model.parameters(), plain.state.components.model.parameters(), strict=True
    ):
        assert one.equal(other)
