"""SIGKILL at random instants, in training and in sampling."""

import json
import random
import signal
import time
from functools import partial
from pathlib import Path

import torch

from scripts.stress_tests.processes import IMAGES, POINTS, Outcome, kill_within, plain, quiet, start, status_of
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.config.schema import from_dict
from tdpm_cli.sampling.sample import sample
from tdpm_cli.training.train import train

INTERVAL, STEP, DURATION = 1600, 32, 48000  # images between checkpoints, a step, and of a whole run
LIVES = 5  # into which a kill divides a run, more or less


def training(n: int, folder: Path) -> Outcome:
    """Kill training n times; each time the run must be resumable, and in the end as if nothing had happened."""
    quiet()
    config = from_dict(plain("toy-mixture", *POINTS, f"train.duration={DURATION}", f"train.snapshot={INTERVAL}",
                             "train.log=32"))  # fmt: skip
    straight, begin = folder / "straight" / "run", time.monotonic()
    status = status_of(start(partial(train, config, folder / "straight", "run"), folder / "told"))
    failures = [] if status == 0 else [f"the uninterrupted run ended with {status}"]
    seconds = (time.monotonic() - begin) / LIVES * 2
    rng, killed, finished, lost, writing, number = random.Random(0), 0, 0, [], 0, 0
    while killed < n and not failures:
        run = folder / f"{number}" / "run"
        status = kill_within(start(partial(train, config, run.parent, "run"), folder / "told"), seconds, rng)
        if status == 0:
            failures += differences(straight, run)
            number, finished = number + 1, finished + 1
            continue
        if status != -signal.SIGKILL:
            failures.append(f"after {killed} kills it ended with {status}: {(folder / 'told').read_text()[-500:]}")
            break
        killed += 1
        writing += bool(list((run / CHECKPOINTS).glob("*.part")))
        newest = checkpoint.newest(run)
        at = int(newest.name) if newest else 0
        lost.append(logged(run) - at)
        if lost[-1] > 2 * INTERVAL:
            failures.append(f"kill {killed} lost {lost[-1]} images, and checkpoints are {INTERVAL} apart")
    if not failures:  # the last one to its end
        run = folder / f"{number}" / "run"
        status = status_of(start(partial(train, config, run.parent, "run"), folder / "told"))
        failures += differences(straight, run) if status == 0 else [f"the last life ended with {status}"]
        finished += 1
    most, within = max(lost, default=0) / INTERVAL, sum(images <= INTERVAL for images in lost)
    return Outcome(
        "a crash at any instant leaves a resumable run, and what follows is as if nothing had happened",
        f"SIGKILL at {n} random instants of training, a checkpoint every {INTERVAL // STEP} steps",
        f"{killed} of {n} resumed, {writing} of them while a checkpoint was being written; lost: at most {most:.1f} "
        f"intervals, at most one in {within} of {len(lost)}; {finished} runs ended with the weights, moments, averages "
        "and log of the uninterrupted one, bit for bit",
        failures,
    )


def logged(run: Path) -> int:
    """Images seen by the last whole line of the log."""
    try:
        lines = [line for line in (run / "log.jsonl").read_text().splitlines(True) if line.endswith("\n")]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["seen"]) if lines else 0


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs that should be the same."""
    a, b = (checkpoint.newest(run) for run in (one, other))
    if a is None or b is None or a.name != b.name:
        return [f"{other} ended at {b and b.name}, not {a and a.name}"]
    found = []
    for path in sorted(a.glob("*.safetensors")):
        left, right = (weights.read_weights(folder / path.name)[0] for folder in (a, b))
        found += [f"{path.name}: {key} differs" for key in left if not torch.equal(left[key], right[key])]
    if formats.state_of(a) != formats.state_of(b):
        found.append("state.json differs")
    logs = [
        [{key: value for key, value in json.loads(line).items() if key not in ("img/s", "loader")}
         for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]  # fmt: skip
    return found + ([] if logs[0] == logs[1] else ["log.jsonl differs"])


def sampling(n: int, folder: Path) -> Outcome:
    """Kill sampling n times; the finished folders must be the one that was never interrupted, byte for byte."""
    quiet()
    model = train(from_dict(plain("digits", *IMAGES)), folder, "model")
    work = partial(sample, n=240, model=model, batch=8, seed=1)
    failures, partial_images, begin = list[str](), 0, time.monotonic()
    if status := status_of(start(partial(work, folder / "whole"), folder / "told")):
        failures.append(f"uninterrupted sampling ended with {status}: {(folder / 'told').read_text()[-500:]}")
    seconds, whole = (time.monotonic() - begin) / LIVES * 2, contents(folder / "whole")
    rng, killed, finished = random.Random(1), 0, 0
    while not failures and (killed < n or not finished or (folder / f"{finished}").exists()):
        out = folder / f"{finished}"
        child = start(partial(work, out), folder / "told")
        status = kill_within(child, seconds, rng) if killed < n else status_of(child)
        partial_images += sum(whole.get(name) != content for name, content in contents(out).items()
                              if name.endswith(".png"))  # fmt: skip
        if status == 0:
            finished += 1
            if contents(out) != whole:
                failures.append(f"{out.name}: the finished folder is another, after {killed} kills in all")
        elif status == -signal.SIGKILL:
            killed += 1
        else:
            failures.append(f"after {killed} kills it ended with {status}: {(folder / 'told').read_text()[-500:]}")
    if partial_images:
        failures.append(f"{partial_images} images were seen that are not those of the uninterrupted folder")
    return Outcome(
        "sampling continues after a kill, no partial image is ever seen, and the set is the uninterrupted one",
        f"SIGKILL at {n} random instants of sampling 240 images",
        f"{killed} kills, {finished} folders finished, byte for byte the uninterrupted one; {partial_images} partial "
        "images seen",
        failures,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """All files but those that are there only while samples are made."""
    return {path.name: path.read_bytes() for path in folder.glob("*")
            if path.is_file() and path.name != ".claims" and not path.name.endswith(".part")}  # fmt: skip
