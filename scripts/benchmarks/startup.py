"""`tdpm --help`, and messages about wrong words, against a bare Typer program's: medians of alternating runs."""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.timing import row

BARE = """import typer
app = typer.Typer()
@app.command()
def one(name: str = typer.Option("x", help="A name.")) -> None: ...
@app.command()
def two() -> None: ...
app()
"""
HELP, ERROR = "bare Typer --help", "bare Typer, an unknown option"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15, help="runs of each (15)")


def seconds(command: list[str], status: int) -> float:
    begin = time.perf_counter()
    done = subprocess.run(command, capture_output=True)
    took = time.perf_counter() - begin
    assert done.returncode == status, done.stderr
    return took


def run(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE)
        ours, peer = [str(Path(sys.executable).with_name("tdpm"))], [sys.executable, str(bare)]
        digits, known = [*ours, "train", "--preset", "digits", "--set"], [*ours, "sample", "--model", folder, "out"]
        commands = {
            HELP: ([*peer, "--help"], 0),
            ERROR: ([*peer, "one", "--unknown"], 2),
            "tdpm --help": ([*ours, "--help"], 0),
            "train --preset unknown": ([*ours, "train", "--preset", "unknown"], 2),
            "train … --set train.bacth=4": ([*digits, "train.bacth=4"], 2),
            "train … --set backbone.chanels=4": ([*digits, "backbone.chanels=4"], 2),
            "train … --set backbone.channels=many": ([*digits, "backbone.channels=many"], 2),
            "sample --sampler unknown": ([*known, "--sampler", "unknown"], 2),
            "eval --features unknown": ([*ours, "eval", folder, "--features", "unknown"], 2),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):  # the first round warms the disk's cache
            for name, (command, status) in commands.items():
                times[name].append(seconds(command, status))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"start-up; medians of {rounds}")
    for name, (_, status) in commands.items():
        against = None if name in (HELP, ERROR) else median[name] / median[ERROR if status else HELP]
        row(name, f"{median[name] * 1000:.0f} ms", against)
