"""Signals during an evaluation: nothing is half-written, and finished rows are not computed again."""

import json
import runpy
import signal
import subprocess
import sys
import time
from pathlib import Path
from unittest.mock import Mock

import pytest

from tdpm_cli.checkpoints.runs import list_checkpoints
from tdpm_cli.config import load_config
from tdpm_cli.runtime import signals
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted, Interruption

TDPM = str(Path(sys.executable).with_name("tdpm"))
ROWS = 16


def interrupt(command, begun, number):
    """Start a command and signal it once `begun` returns true. Return its status and output."""
    process = subprocess.Popen([TDPM, *map(str, command)], stderr=subprocess.PIPE, text=True, start_new_session=True,
                               preexec_fn=ignore_no_signal)  # fmt: skip
    try:
        for _ in range(600):
            if begun() or process.poll() is not None:
                break
            time.sleep(0.1)
        process.send_signal(number)
        _, output = process.communicate(timeout=60)
    finally:
        process.kill()
    return process.returncode, output


def ignore_no_signal():
    """Undo what `nohup` and background jobs of a shell pass on: a signal that they ignore stays ignored."""
    for number in signals.SIGNALS:
        signal.signal(number, signal.SIG_DFL)


@pytest.mark.parametrize(("number", "status"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 143)])
def test_eval_ends_at_once_and_leaves_nothing(runs, tmp_path, number, status):
    folder = tmp_path / "new"  # exists before the work begins
    command = ["eval", "--model", runs["points"], "--n", "20M", "--json", folder / "scores.json"]
    assert interrupt(command, folder.exists, number)[0] == status
    assert list(folder.iterdir()) == []


def test_sweep_keeps_finished_rows(runs, tmp_path):
    out = tmp_path / "out"
    command = ["sweep", "--model", runs["points"], "--n", "256", "--out", out]
    command += ["--steps", ",".join(map(str, range(1, ROWS + 1)))]
    rows = lambda: json.loads((out / "sweep.json").read_text())["rows"] if (out / "sweep.json").exists() else []
    status, output = interrupt(command, rows, signal.SIGTERM)
    assert status == 143, output
    kept = rows()
    assert 1 <= len(kept) < ROWS, "it was not interrupted in the middle"
    done = subprocess.run([TDPM, *map(str, command)], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert f"{ROWS} of {ROWS}: " in done.stderr
    assert not any(line.startswith("1 of ") for line in done.stderr.splitlines()), "a finished row was computed again"
    assert rows()[: len(kept)] == kept
    assert len(rows()) == ROWS


@pytest.mark.parametrize(
    "number",
    [
        "SIGHUP",
        *(pytest.param(n, marks=pytest.mark.slow) for n in ("SIGQUIT", "SIGXCPU", "SIGUSR2", "SIGALRM", "SIGTERM")),
    ],
)
def test_training_saves_within_a_step_after(number, tiny, tmp_path):
    preset, run = tmp_path / "tiny.yaml", tmp_path / "run"
    preset.write_text(load_config(tiny("train.duration=10M", "train.snapshot=10M")).to_yaml())
    command = ["train", "--preset", preset, "--outdir", tmp_path, "--name", "run"]
    status, output = interrupt(command, (run / "log.jsonl").exists, signal.Signals[number])
    assert status == 143, output
    assert list_checkpoints(run)


@pytest.mark.parametrize("number", signals.SIGNALS, ids=lambda number: number.name)
def test_every_signal_that_ends_a_process_is_caught(number):
    begun_with = signal.signal(number, signal.SIG_DFL)
    try:
        with Interruption() as interruption:
            signal.raise_signal(number)
            assert interruption.number == number
        assert signal.getsignal(number) == signal.SIG_DFL
    finally:
        signal.signal(number, begun_with)


def test_no_signal_that_ends_a_process_is_forgotten():
    others = {"SIGKILL"} | signals.HARMLESS | signals.STOPPING | signals.FAULTS | signals.FAILED_WRITES
    for number in set(signal.Signals) - set(signals.SIGNALS):
        assert number.name in others
    assert {"SIGHUP", "SIGINT", "SIGQUIT", "SIGTERM", "SIGXCPU"} <= {number.name for number in signals.SIGNALS}


@pytest.mark.parametrize("handler", [signal.SIG_IGN, lambda number, frame: None], ids=["ignored", "of another library"])
def test_a_signal_of_others_is_left_to_them(handler):
    before = signal.signal(signal.SIGHUP, handler)
    try:
        with Interruption() as interruption:
            signal.raise_signal(signal.SIGHUP)
            assert interruption.number is None
        assert signal.getsignal(signal.SIGHUP) == handler
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("error", "status", "output"),
    [(InputError("no preset"), 2, "error: no preset\n"), (Interrupted(signal.SIGTERM, "stopped"), 143, "stopped\n")],
)
def test_scripts_compare_ends_with_the_status_of_its_error(error, status, output, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["compare", "digits"])
    monkeypatch.setattr("tdpm_cli.training.config.training_config", Mock(side_effect=error))
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "compare.py"), run_name="__main__")
    assert end.value.code == status
    assert capsys.readouterr().err == output


def test_an_ignored_key_stays_ignored_after_an_interruption():
    before = signal.signal(signal.SIGQUIT, signal.SIG_IGN)
    try:
        with Interruption():
            signal.raise_signal(signal.SIGTERM)
            assert signal.getsignal(signal.SIGQUIT) == signal.SIG_IGN
    finally:
        signal.signal(signal.SIGQUIT, before)
