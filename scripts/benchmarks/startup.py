"""Start-up of `tdpm --help` and of error messages, compared with a minimal Typer program: scripts/bench startup

Prints median milliseconds of alternating runs, and their ratio to the minimal program.
"""

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
BARE_HELP, BARE_ERROR = "minimal Typer --help", "minimal Typer, unknown option"


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=15, help="timed runs (15)")


def seconds(command: list[str], status: int) -> float:
    begin = time.perf_counter()
    process = subprocess.run(command, capture_output=True)
    elapsed = time.perf_counter() - begin
    assert process.returncode == status, process.stderr
    return elapsed


def run(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE)
        ours, peer = [str(Path(sys.executable).with_name("tdpm"))], [sys.executable, str(bare)]
        digits, known = [*ours, "train", "--preset", "digits", "--set"], [*ours, "sample", "--model", folder, "out"]
        commands = {
            BARE_HELP: ([*peer, "--help"], 0),
            BARE_ERROR: ([*peer, "one", "--unknown"], 2),
            "tdpm --help": ([*ours, "--help"], 0),
            "train --preset unknown": ([*ours, "train", "--preset", "unknown"], 2),
            "train … --set train.bacth=4": ([*digits, "train.bacth=4"], 2),
            "train … --set backbone.chanels=4": ([*digits, "backbone.chanels=4"], 2),
            "train … --set backbone.channels=many": ([*digits, "backbone.channels=many"], 2),
            "sample --sampler unknown": ([*known, "--sampler", "unknown"], 2),
            "eval --features unknown": ([*ours, "eval", folder, "--features", "unknown"], 2),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):  # the first round fills the disk cache
            for name, (command, status) in commands.items():
                times[name].append(seconds(command, status))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"start-up; medians of {rounds}")
    for name, (_, status) in commands.items():
        ratio = None if name in (BARE_HELP, BARE_ERROR) else median[name] / median[BARE_ERROR if status else BARE_HELP]
        row(name, f"{median[name] * 1000:.0f} ms", ratio)
