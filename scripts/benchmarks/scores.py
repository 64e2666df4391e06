"""Whether faster training changes scores: scripts/bench scores

Trains short runs in float32, in bf16, and compiled, with several seeds. Prints the mean score of each, its standard
deviation over seeds, and the differences between the means.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, row

PLAIN = "fp32"
KINDS = {PLAIN: ("fp32", "false"), "bf16": ("bf16", "false"), "bf16 compiled": ("bf16", "true")}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="digits", help="preset to train (digits)")
    parser.add_argument("--duration", default="16k", help="images in a run (16k)")
    parser.add_argument("--seeds", type=int, default=6, help="seeds (6)")
    parser.add_argument("--n", type=int, default=1000, help="samples to score (1,000)")


def run(preset: str, duration: str, seeds: int, n: int) -> None:
    if seeds < 2:
        raise SystemExit(f"error: --seeds is {seeds}; a standard deviation needs at least 2")

    from tdpm_cli.config import load_config
    from tdpm_cli.evaluation.evaluate import evaluate
    from tdpm_cli.evaluation.options import EvaluateOptions
    from tdpm_cli.training.train import train

    values: dict[str, list[float]] = {kind: [] for kind in KINDS}
    name = ""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for kind, (precision, compiled) in KINDS.items():
                settings = [f"train.duration={duration}", "train.snapshot=1M", f"train.seed={seed}",
                            f"train.precision={precision}", f"sample.precision={precision}",
                            f"train.compile={compiled}"]  # fmt: skip
                model = train(load_config(preset, settings), Path(folder), f"{kind.replace(' ', '-')}-{seed}")
                ((name, score),) = evaluate(None, EvaluateOptions(model=model, n=n))["scores"].items()
                values[kind].append(float(score))
                print(f"{kind}, seed {seed}: {name} {score:.4g}", flush=True)
    print(f"{name} of {preset} after {duration} images; {machine()}; {seeds} seeds")
    for kind, scores in values.items():
        row(f"{kind}: mean ± sd", f"{statistics.fmean(scores):.4g} ± {statistics.stdev(scores):.2g}")
    for kind in list(KINDS)[1:]:
        row(f"{kind} minus {PLAIN}", f"{statistics.fmean(values[kind]) - statistics.fmean(values[PLAIN]):.2g}")
