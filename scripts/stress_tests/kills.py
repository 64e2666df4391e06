"""Kills (SIGKILL) at random instants of training and of sampling."""

import json
import random
import signal
import time
from functools import partial
from pathlib import Path

import torch

from scripts.stress_tests.processes import IMAGES, POINTS, Outcome, kill_within, quiet, start, status_of
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.config import load_config
from tdpm_cli.sampling.options import SampleOptions
from tdpm_cli.sampling.sample import sample
from tdpm_cli.training.train import train

INTERVAL, STEP, DURATION = 1600, 32, 48000  # images: between checkpoints, in a step, in a run
PARTS = 5  # into which kills divide a run, roughly


def training(n: int, folder: Path) -> Outcome:
    """Kill training n times. Each time the run must resume, and end exactly as an uninterrupted run."""
    quiet()
    config = load_config("toy-mixture", [*POINTS, f"train.duration={DURATION}", f"train.snapshot={INTERVAL}",
                             "train.log=32"])  # fmt: skip
    uninterrupted, begin = folder / "uninterrupted" / "run", time.monotonic()
    status = status_of(start(partial(train, config, folder / "uninterrupted", "run"), folder / "log"))
    failures = [] if status == 0 else [f"the uninterrupted run exited with {status}"]
    seconds = (time.monotonic() - begin) / PARTS * 2
    rng, killed, finished, lost, writing, number = random.Random(0), 0, 0, list[int](), 0, 0
    while killed < n and not failures:
        run = folder / f"{number}" / "run"
        status = kill_within(start(partial(train, config, run.parent, "run"), folder / "log"), seconds, rng)
        if status == 0:
            failures += differences(uninterrupted, run)
            number, finished = number + 1, finished + 1
            continue
        if status != -signal.SIGKILL:
            failures.append(f"after {killed} kills it exited with {status}: {(folder / 'log').read_text()[-500:]}")
            break
        killed += 1
        writing += bool(list((run / CHECKPOINTS).glob("*.part")))
        newest = checkpoint.newest(run)
        lost.append(logged(run) - (int(newest.name) if newest else 0))
        if lost[-1] > 2 * INTERVAL:
            failures.append(f"kill {killed} lost {lost[-1]} images, and checkpoints are {INTERVAL} apart")
    if not failures:  # finish the last run
        run = folder / f"{number}" / "run"
        status = status_of(start(partial(train, config, run.parent, "run"), folder / "log"))
        failures += differences(uninterrupted, run) if status == 0 else [f"the last run exited with {status}"]
        finished += 1
    longest, within = max(lost, default=0) / INTERVAL, sum(images <= INTERVAL for images in lost)
    return Outcome(
        "A crash at any instant leaves a run that continues as if nothing had happened.",
        f"SIGKILL at {n} random instants of training, with a checkpoint every {INTERVAL // STEP} steps",
        f"{killed} of {n} resumed, {writing} of them after a kill during a save; at most {longest:.1f} intervals "
        f"of work lost, at most one interval in {within} of {len(lost)}; {finished} runs ended with the weights, "
        "moments, averages and log of the uninterrupted run, bit for bit",
        failures,
    )


def logged(run: Path) -> int:
    """Return the images seen at the last complete line of the log."""
    try:
        lines = [line for line in (run / "log.jsonl").read_text().splitlines(True) if line.endswith("\n")]
    except FileNotFoundError:
        return 0
    return int(json.loads(lines[-1])["seen"]) if lines else 0


def differences(one: Path, other: Path) -> list[str]:
    """List what differs between two runs that should be equal."""
    a, b = (checkpoint.newest(run) for run in (one, other))
    if a is None or b is None or a.name != b.name:
        return [f"{other} ended at {b and b.name}, not {a and a.name}"]
    result = []
    for path in sorted(a.glob("*.safetensors")):
        left, right = (weights.read_weights(folder / path.name)[0] for folder in (a, b))
        result += [f"{path.name}: {key} differs" for key in left if not torch.equal(left[key], right[key])]
    if formats.read_state(a) != formats.read_state(b):
        result.append("state.json differs")
    logs = [
        [{key: value for key, value in json.loads(line).items() if key not in ("img/s", "loader")}
         for line in (run / "log.jsonl").read_text().splitlines()]
        for run in (one, other)
    ]  # fmt: skip
    return result + ([] if logs[0] == logs[1] else ["log.jsonl differs"])


def sampling(n: int, folder: Path) -> Outcome:
    """Kill sampling n times. Each finished folder must equal that of an uninterrupted run, byte for byte."""
    quiet()
    model = train(load_config("digits", IMAGES), folder, "model")
    work = partial(sample, options=SampleOptions(model=model, n=240, seed=1, sampling={"batch": 8}))
    failures, partial_images, begin = list[str](), 0, time.monotonic()
    if status := status_of(start(partial(work, folder / "uninterrupted"), folder / "log")):
        failures.append(f"uninterrupted sampling exited with {status}: {(folder / 'log').read_text()[-500:]}")
    seconds, expected = (time.monotonic() - begin) / PARTS * 2, contents(folder / "uninterrupted")
    rng, killed, finished = random.Random(1), 0, 0
    while not failures and (killed < n or not finished or (folder / f"{finished}").exists()):
        out = folder / f"{finished}"
        child = start(partial(work, out), folder / "log")
        status = kill_within(child, seconds, rng) if killed < n else status_of(child)
        partial_images += sum(expected.get(name) != content for name, content in contents(out).items()
                              if name.endswith(".png"))  # fmt: skip
        if status == 0:
            finished += 1
            if contents(out) != expected:
                failures.append(f"{out.name}: the finished folder differs, after {killed} kills in all")
        elif status == -signal.SIGKILL:
            killed += 1
        else:
            failures.append(f"after {killed} kills it exited with {status}: {(folder / 'log').read_text()[-500:]}")
    if partial_images:
        failures.append(f"{partial_images} images differ from those of the uninterrupted folder")
    return Outcome(
        "Sampling continues after a kill. No partial image is ever visible. The set equals the uninterrupted one.",
        f"SIGKILL at {n} random instants of sampling 240 images",
        f"{killed} kills; {finished} folders finished, each equal to the uninterrupted one, byte for byte; "
        f"{partial_images} partial images",
        failures,
    )


def contents(folder: Path) -> dict[str, bytes]:
    """Read all files of a folder, except those that exist only while tdpm writes it."""
    return {path.name: path.read_bytes() for path in folder.glob("*")
            if path.is_file() and path.name != ".locks" and not path.name.endswith(".part")}  # fmt: skip
