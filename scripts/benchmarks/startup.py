"""`tdpm --help`, and the message about a wrong word, against a bare Typer program's: medians of alternating runs."""

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
        commands = {
            "tdpm --help": ([*ours, "--help"], 0),
            "bare Typer --help": ([*peer, "--help"], 0),
            "tdpm train --preset unknown": ([*ours, "train", "--preset", "unknown"], 2),
            "bare Typer, an unknown option": ([*peer, "one", "--unknown"], 2),
        }
        times: dict[str, list[float]] = {name: [] for name in commands}
        for _ in range(rounds + 1):  # the first round warms the disk's cache
            for name, (command, status) in commands.items():
                times[name].append(seconds(command, status))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"start-up; medians of {rounds}")
    for name, peers in zip(list(commands)[::2], list(commands)[1::2], strict=True):
        row(name, f"{median[name] * 1000:.0f} ms")
        row(peers, f"{median[peers] * 1000:.0f} ms", median[name] / median[peers])
