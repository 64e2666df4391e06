"""Every figure of docs/performance.md: startup, train, sample, parallel, scores and growth, one after another.

On a CPU steps and samples are computed by one thread, so that the processor's clock can time them.
"""

import argparse
import sys

from scripts.benchmarks.timing import run_quietly

WHAT = ("startup", "train", "sample", "parallel", "scores", "growth")


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--only", nargs="+", choices=WHAT, default=WHAT, help="some of them")


def run(only: tuple[str, ...]) -> None:
    import torch

    threads = {} if torch.cuda.is_available() else {"OMP_NUM_THREADS": "1"}
    for what in only:
        print(f"\n== {what}", flush=True)
        command = [sys.executable, "-m", "scripts.benchmarks", what]
        run_quietly(command, stdout=None, **threads)
