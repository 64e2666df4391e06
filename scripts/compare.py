"""Truncated against not truncated: the same network, images seen and seed; every figure measured here.

    scripts/compare PRESET [--duration 256k] [--outdir DIR] [--data PATH] [--set SECTION.KEY=VALUE] [--n 1k]
                    [--repeats 3] [--text image-text:FILE] [--write FILE.jsonl]

Trains the preset and its baseline (the whole chain from N(0, I)), or continues where a former call stopped,
and prints the score of both by network calls (NFE), the ceiling (decoding from real x_T) and the distance of
prior and data at x_T alone. Nothing is guided, so that network calls are steps. With --text images are also scored by
how well they fit the captions that they were drawn from. Each sampler's scores are means over --repeats seeds, with the
spread from seed to seed.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.cli.options import count
from tdpm_cli.config import presets
from tdpm_cli.config import schema as config
from tdpm_cli.evaluation.diagnose import diagnose
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.evaluation.extractors import Extractor, load_extractor, load_text_extractor
from tdpm_cli.evaluation.inputs import SampledModel, data_of, samples_of
from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.results import merge
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime.console import say, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import settings_of
from tdpm_cli.training.train import train

STEPS = (1, 2, 4, 8, 16, 50)
BASELINE_NFE = (2, 3, 5, 9, 17, 51)
UNGUIDED = {"guidance_scale": 1.0, "prior_guidance_scale": 1.0}
PLAIN = {f"even {name.upper()}": {"sampler": name, "spacing": 1.0, **UNGUIDED} for name in ("ddim", "ddpm")}


def trained(plain: dict[str, Any], outdir: Path, name: str) -> build.Loaded:
    settings = config.load_config(plain)
    return build.load(train(settings, outdir, name) or outdir / name)


def compare(
    ours: build.Loaded,
    baseline: build.Loaded,
    sample: config.SampleConfig,
    n: int,
    text: str | None,
    repeats: int,
) -> list[dict[str, str]]:
    made, device = ours.components, precision.device()
    data = data_of(made.config)
    n = min(len(data), n)
    extractor = load_extractor(made.config.eval.features, None, device) if len(data.shape) == 3 else None
    scorer = Scorer(data, extractor, text=load_text_extractor(text, device) if text else None)
    own = {"sampler": sample.sampler, "spacing": sample.spacing, **UNGUIDED}
    rows = []

    def row(what: str, nfe: str, score: Score, of_text: Score | None = None) -> None:
        rows.append({"what": what, "NFE": nfe, "score": f"{score.value:.4g}", "of": score.name})
        if repeats > 1:
            rows[-1]["±"] = f"{score.error:.2g}" if score.error is not None else ""
        if text:
            rows[-1]["text"] = of_text.text if of_text else ""
        say(f"{what:<34}{nfe:>9}  " + "  ".join(list(rows[-1].values())[2:]))

    def sampled(
        what: str, nfe: str, loaded: build.Loaded, steps: int, start: str = "prior",
        sampler: Mapping[str, Any] = own,
    ) -> None:  # fmt: skip
        settings = settings_of(loaded.components, steps=steps, **sampler)
        seeds = [samples_of(loaded, settings, seed, n, start, data.data) for seed in range(repeats)]
        row(what, nfe, *merge([scorer.score(each) for each in seeds]).overall)

    cut, chain = (each.components.model.denoiser.schedule.T for each in (ours, baseline))
    # The preset's sampler, and beside it the field's plain choice and the paper's; each serves both models alike.
    samplers = {f"T = {cut}": own} | {name: each for name, each in PLAIN.items() if each != own}
    for name, sampler in samplers.items():
        for steps in (s for s in STEPS if s <= cut):
            sampled(f"truncated, {name}", f"1 + {steps}", ours, steps, sampler=sampler)
        for nfe in BASELINE_NFE:
            sampled(f"baseline, {name.replace(str(cut), str(chain))}", f"0 + {nfe}", baseline, nfe, sampler=sampler)
    sampled("truncated chain from N(0, I)", "0 + 4", ours, 4, "gaussian")
    told = diagnose(SampledModel(ours, settings_of(made, steps=4, **own), 0), data, scorer, n)
    row("ceiling: decoded from real x_T", "4", told.from_data)
    row("prior against data at x_T", "1", Score("sliced W2", told.at_x_T))
    row("data against data at x_T (halves)", "–", Score("sliced W2", told.halves))
    row("data against data (halves)", "–", halves(data, extractor))
    say(told.advice)
    return rows


def halves(data: Examples, extractor: Extractor | None) -> Score:
    """The distance of one half of the data from the other, drawn at random: what no sampler can be expected to beat."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    first, second = order[: len(data) // 2], order[len(data) // 2 :]
    return Scorer(data.subset(first), extractor, cache=False).score(data.subset(second)).distance


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--duration")
    parser.add_argument("--outdir", type=Path, default=Path("runs/compare"))
    parser.add_argument("--data", type=Path)
    parser.add_argument("--n", default="10k", help="samples of each score, at most")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of each score: mean ± sd (3)")
    parser.add_argument("--text", help="features that know text, such as image-text:FILE")
    parser.add_argument("--set", action="append", default=[], dest="assignments")
    parser.add_argument("--write", type=Path, help="also write the table there, as JSON lines")
    given = parser.parse_args()
    plain = presets.override(presets.read_preset(given.preset), given.assignments)
    plain = presets.with_data(plain, given.data, False, given.assignments)
    if given.duration:
        plain["train"] = {**plain["train"], "duration": given.duration}
    baseline_plain = presets.override(plain, ["schedule.truncate=null", "prior.name=gaussian"])
    ours = trained(plain, given.outdir, plain["preset"])
    baseline = trained(baseline_plain, given.outdir, plain["preset"] + "-baseline")
    rows = compare(ours, baseline, config.load_config(plain).sample, count("--n", given.n), given.text, given.repeats)
    table(f"compare {given.preset}", rows)
    if given.write:
        given.write.parent.mkdir(parents=True, exist_ok=True)
        given.write.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    try:
        main()
    except (InputError, Interrupted) as error:
        print(f"error: {error}" if isinstance(error, InputError) else error, file=sys.stderr)
        sys.exit(error.status)
