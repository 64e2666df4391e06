"""Whether scores move with what makes training fast: short runs in float32, in bf16, and compiled, of several seeds.

The difference between the means is shown beside the spread from seed to seed.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from scripts.benchmarks.timing import machine, row

PLAIN = "fp32"
KINDS = {PLAIN: ("fp32", "false"), "bf16": ("bf16", "false"), "bf16 compiled": ("bf16", "true")}


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="digits", help="what is trained (digits)")
    parser.add_argument("--duration", default="16k", help="images a run (16k)")
    parser.add_argument("--seeds", type=int, default=6, help="runs of each (6)")
    parser.add_argument("--n", type=int, default=1000, help="samples scored (1,000)")


def run(preset: str, duration: str, seeds: int, n: int) -> None:
    if seeds < 2:
        raise SystemExit(f"--seeds is {seeds}: a spread needs at least 2")

    from tdpm_cli.config import presets, schema
    from tdpm_cli.evaluation.evaluate import evaluate
    from tdpm_cli.training.train import train

    found: dict[str, list[float]] = {kind: [] for kind in KINDS}
    name = ""
    with tempfile.TemporaryDirectory() as folder:
        for seed in range(seeds):
            for kind, (precision, compiled) in KINDS.items():
                settings = [f"train.duration={duration}", "train.snapshot=1M", f"train.seed={seed}",
                            f"train.precision={precision}", f"sample.precision={precision}",
                            f"train.compile={compiled}"]  # fmt: skip
                plain = presets.override(presets.read_preset(preset), settings)
                model = train(schema.load_config(plain), Path(folder), f"{kind.replace(' ', '-')}-{seed}")
                ((name, score),) = evaluate(model=model, n=n)["scores"].items()
                found[kind].append(float(score))
                print(f"{kind}, seed {seed}: {name} {score:.4g}", flush=True)
    print(f"{name} of {preset} after {duration} images; {machine()}; {seeds} seeds")
    for kind, scores in found.items():
        row(f"{kind}: mean ± sd", f"{statistics.fmean(scores):.4g} ± {statistics.stdev(scores):.2g}")
    for kind in list(KINDS)[1:]:
        row(f"{kind} less {PLAIN}", f"{statistics.fmean(found[kind]) - statistics.fmean(found[PLAIN]):.2g}")
