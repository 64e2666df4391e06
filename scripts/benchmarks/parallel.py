"""Training with two processes on two cores, compared with one process on one core: scripts/bench parallel

Both train the same networks on the same global batch, with one thread a process. Complete steps are
timed by the wall clock. Prints images per second and the speed-up, ideally 2.
"""

import argparse
import json
import statistics
import sys
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, row, run_quietly


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="digits", help="preset of the networks (digits)")
    parser.add_argument("--batch", type=int, default=512, help="images in a step, over all processes (512)")
    parser.add_argument("--steps", type=int, default=8, help="steps in a run; the first two are not timed (8)")
    parser.add_argument("--rounds", type=int, default=3, help="timed runs (3)")
    parser.add_argument("--nproc", type=int, default=2, help="processes (2)")


def run(preset: str, batch: int, steps: int, rounds: int, nproc: int) -> None:
    times: dict[int, list[float]] = {1: [], nproc: []}
    for _ in range(rounds):
        for count, seconds in times.items():
            seconds.append(seconds_a_step(preset, batch, steps, count))
    one, many = (statistics.median(seconds) for seconds in times.values())
    print(f"training {preset}, global batch {batch}; {machine()}; medians of {rounds}")
    row("1 process, 1 thread", f"{batch / one:.4g} img/s")
    row(f"{nproc} processes, 1 thread each", f"{batch / many:.4g} img/s", one / many)


def seconds_a_step(preset: str, batch: int, steps: int, count: int) -> float:
    """Return seconds a step of a run with `count` processes, without its first two steps."""
    with tempfile.TemporaryDirectory() as folder:
        command = [
            str(Path(sys.executable).with_name("tdpm")), "train", "--preset", preset, "--outdir", folder, "--name", "x",
            "--batch", str(batch), "--duration", str(batch * steps), "--nproc", str(count), "--set",
            f"train.log={batch}", "--set", "train.snapshot=100M",
        ]  # fmt: skip
        run_quietly(command, OMP_NUM_THREADS="1")
        lines = [json.loads(line) for line in Path(folder, "x", "log.jsonl").read_text().splitlines()]
    # A line of the log divides the images before its step by the time until its end.
    times = [(line["seen"] - batch) / line["img/s"] for line in lines[2:]]
    return (times[-1] - times[0]) / (len(times) - 1)
