"""Truncated against not truncated: the same network, images seen and seed; every figure measured here.

    scripts/compare PRESET [--duration 256k] [--outdir DIR] [--set SECTION.KEY=VALUE] [--write FILE.jsonl]

Trains the preset and its baseline (the whole chain from N(0, I)), or continues where a former call stopped,
and prints the score of both by network calls (NFE), the ceiling (decoding from real x_T) and the distance of
prior and data at x_T alone.
"""

import argparse
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli import assemble, config, parts
from tdpm_cli.commands.train import train
from tdpm_cli.engine import scores
from tdpm_cli.engine.model import generate
from tdpm_cli.engine.noise import Noise
from tdpm_cli.errors import InputError
from tdpm_cli.run import precision
from tdpm_cli.run.report import say, table
from tdpm_cli.scoring import Scorer, batches_of, distance_name

STEPS = (1, 2, 4, 8, 16)
BASELINE_NFE = (2, 3, 5, 9, 17, 51)
Score = Callable[[Iterator[Tensor]], float]


def trained(plain: dict[str, Any], outdir: Path, name: str) -> assemble.Loaded:
    settings = config.from_dict(plain)
    return assemble.load(train(settings, outdir, name) or outdir / name)


@torch.inference_mode()
def compare(ours: assemble.Loaded, baseline: assemble.Loaded) -> list[dict[str, str]]:
    made = ours.assembly
    data, _ = assemble.read_data(made.config)
    schedule, is_image = made.model.denoiser.schedule, len(made.space.raw_shape) == 3
    n = min(len(data), 10_000)
    everything, conditions = data[range(len(data))]
    batch = made.config.sample.batch if is_image else 2000

    features = made.config.eval.features if is_image else ""
    extract = parts.load("features", features)(precision.device()) if is_image else None
    scorer = Scorer(data, extract, features)
    metric = distance_name(features, n)
    score: Score = lambda raws: scorer.score(raws, n)[0].value

    def sampled(loaded: assemble.Loaded, steps: int) -> float:
        it = loaded.assembly
        raws = generate(it.model, it.space, it.condition, 0, range(n), batch, steps=steps)
        return score(raw for raw, _ in raws)

    def x_T_of(kind: str) -> Iterator[tuple[Tensor, Noise, dict[str, Tensor]]]:
        for start in range(0, n, batch):
            indices = range(start, min(start + batch, n))
            noise = Noise(1, indices)
            cond = made.condition.encode({key: value[list(indices)] for key, value in conditions.items()})
            x_0 = made.space.encode(everything[list(indices)])
            real_x_T = schedule.q_sample_T(x_0, noise.normal(made.space.shape))
            yield (real_x_T if kind == "real" else made.model.draw_x_T(noise, cond)), noise, cond

    def decoded(steps: int) -> float:
        return score(
            made.space.decode(made.model.decode(x_T, noise, cond, steps=steps, bounds=made.space.bounds))
            for x_T, noise, cond in x_T_of("real")
        )

    def at_x_T() -> tuple[float, float]:
        # At x_T itself, not in a feature space: sliced W2 of the noisy data, and of two noisy halves as a floor.
        real_x_T = torch.cat([x_T for x_T, _, _ in x_T_of("real")]).flatten(1)
        made_x_T = torch.cat([x_T for x_T, _, _ in x_T_of("prior")]).flatten(1)
        order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
        half = order[: n // 2], order[n // 2 :]
        return (
            scores.sliced_wasserstein(made_x_T, real_x_T),
            scores.sliced_wasserstein(real_x_T[half[0]], real_x_T[half[1]]),
        )

    rows = []

    def row(what: str, nfe: str, value: float, unit: str = metric) -> None:
        rows.append({"what": what, "NFE": nfe, "score": f"{value:.4g}", "of": unit})
        say(f"{what:<34}{nfe:>9}{value:>10.4g}  {unit}")

    cut = f"T = {schedule.T}"
    chain = baseline.assembly.model.denoiser.schedule.T
    for steps in (s for s in STEPS if s <= schedule.T):
        row(f"truncated, {cut}", f"1 + {steps}", sampled(ours, steps))
    for nfe in BASELINE_NFE:
        row(f"baseline, T = {chain}", f"0 + {nfe}", sampled(baseline, nfe))
    row("truncated chain from N(0, I)", "0 + 4", from_gaussian(made, n, batch, score))
    row("ceiling: decoded from real x_T", "4", decoded(4))
    of_prior, floor = at_x_T()
    row("prior against data at x_T", "1", of_prior, "sliced W2")
    row("data against data at x_T (halves)", "–", floor, "sliced W2")
    half = torch.randperm(len(everything), generator=torch.Generator().manual_seed(0))
    first, second = everything[half[: len(half) // 2]], everything[half[len(half) // 2 :]]
    halves = Scorer(first, extract, features).score(batches_of(second, batch), len(second))
    row("data against data (halves)", "–", halves[0].value, halves[0].name)
    return rows


def from_gaussian(made: assemble.Assembly, n: int, batch: int, score: Score) -> float:
    """What truncation without a learned prior gives: the same denoiser, started from N(0, I)."""

    def raws() -> Iterator[Tensor]:
        for start in range(0, n, batch):
            noise = Noise(0, range(start, min(start + batch, n)))
            cond = made.condition.draw(len(range(start, min(start + batch, n))), noise)
            x_T = noise.normal(made.space.shape)
            yield made.space.decode(made.model.decode(x_T, noise, cond, steps=4, bounds=made.space.bounds))

    return score(raws())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--duration")
    parser.add_argument("--outdir", type=Path, default=Path("runs/compare"))
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--write", type=Path, help="also write the table there, as JSON lines")
    given = parser.parse_args()
    plain = config.override(config.read_preset(given.preset), given.assignments)
    if given.duration:
        plain["train"] = {**plain["train"], "duration": given.duration}
    baseline_plain = config.override(plain, ["schedule.truncate=null", "prior.name=gaussian"])
    ours = trained(plain, given.outdir, plain["preset"])
    baseline = trained(baseline_plain, given.outdir, plain["preset"] + "-baseline")
    rows = compare(ours, baseline)
    table(f"compare {given.preset}", rows)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    try:
        main()
    except InputError as error:
        raise SystemExit(f"error: {error}") from None
