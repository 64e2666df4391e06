"""The best checkpoint by score is kept, whatever else is removed."""

import json
import shutil

import pytest
from helpers import score

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.config import load_config
from tdpm_cli.evaluation.while_training import checkpoint_scorer
from tdpm_cli.sampling import build
from tdpm_cli.training.train import train

SCORED = ("train.score=true", "eval.n=64")


def scores(run):
    """The scores in the log, by images seen."""
    lines = map(json.loads, (run / "log.jsonl").read_text().splitlines())
    return {line["seen"]: line["score/sliced W2"] for line in lines if "score/sliced W2" in line}


def saved(folder):
    """A checkpoint without weights."""
    folder.mkdir(parents=True)
    formats.write_state(folder, {"seen": int(folder.name), "ema": [1]}, {})
    formats.seal(folder)
    return folder


def test_every_checkpoint_is_scored_and_the_best_is_kept(tiny, tmp_path, capsys):
    run = train(load_config(tiny(*SCORED)), tmp_path, "run", make_score=checkpoint_scorer)
    measured = scores(run)
    assert list(measured) == [64, 128, 192, 256]
    least = min(measured, key=measured.get)
    assert build.load_model(run / "best").seen == least
    name, value = checkpoint.best(run)
    assert (name, value) == ("sliced W2", pytest.approx(measured[least], rel=1e-5))
    assert "the best checkpoint so far" in capsys.readouterr().err
    again = score(model=run / "best", n=64)
    assert again["scores"]["sliced W2"] == pytest.approx(value, rel=1e-6)


def test_a_better_checkpoint_replaces_the_best_and_a_worse_one_does_not(tmp_path):
    first, second, third = (saved(tmp_path / "checkpoints" / f"{seen:09d}") for seen in (10, 20, 30))
    assert checkpoint.keep_best(tmp_path, first, "FD", 5.0)
    assert not checkpoint.keep_best(tmp_path, second, "FD", 6.0)
    shutil.rmtree(first)  # as the oldest is removed; its linked files remain
    (kept,) = checkpoint.list_checkpoints(tmp_path / "best")
    formats.verify(kept)
    assert (kept.name, checkpoint.best(tmp_path)) == (first.name, ("FD", 5.0))
    assert checkpoint.keep_best(tmp_path, third, "FD", 4.0)
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path / "best")] == [third.name]
    assert checkpoint.keep_best(tmp_path, second, "KID", 9.0), "scores of another kind are not compared"


def test_a_disk_error_leaves_the_best_as_it_was(tmp_path, monkeypatch):
    first, second = (saved(tmp_path / "checkpoints" / f"{seen:09d}") for seen in (10, 20))
    checkpoint.keep_best(tmp_path, first, "FD", 5.0)

    def fail(*_):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "sync", fail)
    with pytest.raises(checkpoint.WriteError, match=r"best.*no space left"):
        checkpoint.keep_best(tmp_path, second, "FD", 4.0)
    monkeypatch.undo()
    assert checkpoint.best(tmp_path) == ("FD", 5.0)
    assert checkpoint.keep_best(tmp_path, second, "FD", 4.0), "the remains of the failure do not prevent it"


def test_a_run_killed_before_its_score_is_scored_when_it_continues(tiny, tmp_path):
    run = train(load_config(tiny(*SCORED)), tmp_path, "run", make_score=checkpoint_scorer)
    before, log = scores(run), run / "log.jsonl"
    shutil.rmtree(run / "best")
    log.write_text("".join(line for line in log.read_text().splitlines(True) if '"score/' not in line))
    train(load_config(tiny(*SCORED)), tmp_path, "run", make_score=checkpoint_scorer)
    assert scores(run) == {256: before[256]}
    assert build.load_model(run / "best").seen == 256
