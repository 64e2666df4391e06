"""The table, scores, start-up and growth of docs/performance.md: scripts/bench all

Runs the benchmarks startup, train, sample, parallel, scores and growth one after another, and prints their rows.
On a CPU, one thread computes, so that the clock of the process measures the time.
"""

import argparse
import sys

from scripts.benchmarks.timing import run_quietly

NAMES = ("startup", "train", "sample", "parallel", "scores", "growth")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=NAMES, default=NAMES, help="benchmarks (all of these)")


def run(only: tuple[str, ...]) -> None:
    import torch

    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    for name in only:
        print(f"\n== {name}", flush=True)
        command = [sys.executable, "-m", "scripts.benchmarks", name]
        run_quietly(command, stdout=None, **threads)
