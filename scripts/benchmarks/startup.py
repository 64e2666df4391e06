"""`tdpm --help` against a bare Typer program's --help: medians of alternating runs."""

import argparse
import statistics
import sys
import tempfile
import time
from pathlib import Path

from scripts.benchmarks.timing import run_quietly

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


def seconds(command: list[str]) -> float:
    begin = time.perf_counter()
    run_quietly(command)
    return time.perf_counter() - begin


def run(rounds: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        bare = Path(folder, "bare.py")
        bare.write_text(BARE)
        ours, peer = [str(Path(sys.executable).with_name("tdpm")), "--help"], [sys.executable, str(bare), "--help"]
        times: dict[str, list[float]] = {"ours": [], "peer": []}
        for _ in range(rounds + 1):  # the first round warms the disk's cache
            times["ours"].append(seconds(ours))
            times["peer"].append(seconds(peer))
    median = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"tdpm --help        {median['ours'] * 1000:6.0f} ms (median of {rounds})")
    print(f"bare Typer --help  {median['peer'] * 1000:6.0f} ms")
    print(f"ratio              {median['ours'] / median['peer']:6.2f}")
