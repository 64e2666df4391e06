"""Whether scores move with the number format: short runs in float32 and in bf16, of several seeds each.

The difference between the two means is shown beside the spread from seed to seed.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, row


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="digits", help="what is trained (digits)")
    parser.add_argument("--duration", default="16k", help="images a run (16k)")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each (3)")
    parser.add_argument("--n", type=int, default=1000, help="samples scored (1,000)")


def run(preset: str, duration: str, seeds: int, n: int) -> None:
    from tdpm_cli import config as configuration
    from tdpm_cli import presets
    from tdpm_cli.commands.evaluate import evaluate
    from tdpm_cli.commands.train import train

    found: dict[str, list[float]] = {"fp32": [], "bf16": []}
    name = ""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for kind, scores in found.items():
                settings = [f"train.duration={duration}", f"train.seed={seed}", f"train.precision={kind}",
                            f"sample.precision={kind}", "train.snapshot=1M"]  # fmt: skip
                plain = presets.override(presets.read_preset(preset), settings)
                model = train(configuration.from_dict(plain), Path(folder), f"{kind}-{seed}")
                ((name, score),) = evaluate(model=model, n=n)["scores"].items()
                scores.append(float(score))
                print(f"{kind}, seed {seed}: {name} {score:.4g}", flush=True)
    print(f"{name} of {preset} after {duration} images; {machine()}; {seeds} seeds")
    for kind, scores in found.items():
        row(f"{kind}: mean ± sd", f"{statistics.fmean(scores):.4g} ± {statistics.stdev(scores):.2g}")
    row("bf16 less fp32", f"{statistics.fmean(found['bf16']) - statistics.fmean(found['fp32']):.2g}")
