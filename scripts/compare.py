"""Compare a truncated model with an untruncated one: the same network, training images and seed.

    scripts/compare PRESET [--duration 256k] [--outdir DIR] [--data PATH] [--set SECTION.KEY=VALUE] [--n 1k]
                    [--repeats 3] [--text image-text:FILE] [--write FILE.jsonl]

Trains the preset and its baseline, which samples from N(0, I) with the untruncated schedule, or continues where an
earlier call stopped. Prints the score of both by network calls (NFE), the ceiling (samples from real x_T) and the
distance of prior and data at x_T alone. Nothing is guided, so that steps and network calls agree. With --text, images
are also scored by their fit to the captions that they were drawn from. Scores are means over --repeats seeds, with
their standard deviation.
"""

import argparse
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.cli.options import count
from tdpm_cli.config.constants import Start
from tdpm_cli.config.presets import Override
from tdpm_cli.config.schema import Config
from tdpm_cli.evaluation.diagnose import diagnose
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.evaluation.extractors import Extractor, load_extractor, load_text_extractor
from tdpm_cli.evaluation.inputs import SampledModel, data_of, samples_of
from tdpm_cli.evaluation.metric import Score
from tdpm_cli.evaluation.results import merge
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.console import print_line, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import settings_of
from tdpm_cli.training.config import Sources, training_config
from tdpm_cli.training.train import train

STEPS = (1, 2, 4, 8, 16, 50)
BASELINE_NFE = (2, 3, 5, 9, 17, 51)
FEW_STEPS = 4  # of the rows that do not vary the steps
UNGUIDED = {"guidance_scale": 1.0, "prior_guidance_scale": 1.0}
PLAIN_SAMPLERS = {f"even {name.upper()}": {"sampler": name, "spacing": 1.0, **UNGUIDED} for name in ("ddim", "ddpm")}
BASELINE: Override = {"schedule": {"truncate": None}, "prior": {"name": "gaussian"}}
Sampling = Mapping[str, Any]


@dataclass
class Comparison:
    """Scores models against the data, and collects a row for each score."""

    scorer: Scorer
    data: Examples
    n: int
    repeats: int
    rows: list[dict[str, str]] = field(default_factory=list)

    def add_model(
        self, what: str, nfe: str, loaded: build.LoadedModel, sampling: Sampling, start: Start = "prior"
    ) -> None:
        """Score samples of a model, drawn with several seeds."""
        settings = settings_of(loaded.components, **sampling)
        sets = [samples_of(loaded, settings, seed, self.n, start, self.data.data) for seed in range(self.repeats)]
        self.add(what, nfe, *merge([self.scorer.score(samples) for samples in sets]).overall)

    def add(self, what: str, nfe: str, distance: Score, text: Score | None = None) -> None:
        """Add and print a row."""
        row = {"what": what, "NFE": nfe, "score": f"{distance.value:.4g}", "of": distance.name}
        if self.repeats > 1:
            row["±"] = f"{distance.error:.2g}" if distance.error is not None else ""
        if self.scorer.text is not None:
            row["text"] = text.text if text else ""
        self.rows.append(row)
        print_line(f"{what:<34}{nfe:>9}  " + "  ".join(list(row.values())[2:]))


def compare(
    ours: build.LoadedModel, baseline: build.LoadedModel, config: Config, n: int, text: str | None, repeats: int
) -> list[dict[str, str]]:
    """Return the rows of a truncated model and its baseline; `config` sets the sampler."""
    device = devices.device()
    data = data_of(ours.components.config)
    extractor = load_extractor(config.eval.features, None, device) if data.is_image else None
    scorer = Scorer(data, extractor, text=load_text_extractor(text, device) if text else None)
    comparison = Comparison(scorer, data, min(len(data), n), repeats)
    own = {"sampler": config.sample.sampler, "spacing": config.sample.spacing, **UNGUIDED}
    T, untruncated_T = (loaded.components.model.denoiser.schedule.T for loaded in (ours, baseline))
    # The preset's sampler, then the field's plain choice and the paper's; each samples both models.
    samplers = {"": own} | {f", {name}": sampling for name, sampling in PLAIN_SAMPLERS.items() if sampling != own}
    for name, sampling in samplers.items():
        for steps in (steps for steps in STEPS if steps <= T):
            what = f"truncated{name or f', T = {T}'}"
            comparison.add_model(what, f"1 + {steps}", ours, {**sampling, "steps": steps})
        for nfe in BASELINE_NFE:
            what = f"baseline{name or f', T = {untruncated_T}'}"
            comparison.add_model(what, f"0 + {nfe}", baseline, {**sampling, "steps": nfe})
    few = {**own, "steps": FEW_STEPS}
    comparison.add_model("truncated, from N(0, I)", f"0 + {FEW_STEPS}", ours, few, "gaussian")
    model = SampledModel(ours, settings_of(ours.components, **few), 0)
    diagnosis = diagnose(model, data, scorer, comparison.n)
    comparison.add("ceiling: from real x_T", f"{FEW_STEPS}", diagnosis.from_data)
    comparison.add("prior against data at x_T", "1", Score("sliced W2", diagnosis.at_x_T))
    comparison.add("data against data at x_T (halves)", "–", Score("sliced W2", diagnosis.halves))
    comparison.add("data against data (halves)", "–", distance_of_halves(data, extractor))
    print_line(diagnosis.advice)
    return comparison.rows


def distance_of_halves(data: Examples, extractor: Extractor | None) -> Score:
    """Return the distance of one random half of the data from the other: the best to be expected of samples."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0)).tolist()
    first, second = order[: len(data) // 2], order[len(data) // 2 :]
    return Scorer(data.subset(first), extractor, cache=False).score(data.subset(second)).distance


def trained(config: Config, outdir: Path, name: str) -> build.LoadedModel:
    """Train a model, or continue its run, and load it."""
    return build.load_model(train(config, outdir, name) or outdir / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset")
    parser.add_argument("--duration", help="training images, such as 256k")
    parser.add_argument("--outdir", type=Path, default=Path("runs/compare"), help="folder of the runs")
    parser.add_argument("--data", type=Path, help="training data")
    parser.add_argument("--n", default="10k", help="samples of each score, at most")
    parser.add_argument("--repeats", type=int, default=3, help="seeds of each score: mean ± sd (3)")
    parser.add_argument("--text", help="features that read captions, such as image-text:FILE")
    parser.add_argument("--set", action="append", default=[], dest="assignments", help="a key of the preset")
    parser.add_argument("--write", type=Path, help="also write the table to this file, as JSON lines")
    options = parser.parse_args()
    overrides, sources = list[Override](options.assignments), Sources(options.data)
    if options.duration:
        overrides.append({"train": {"duration": options.duration}})
    config = training_config(options.preset, overrides, sources)
    ours = trained(config, options.outdir, config.preset)
    untruncated = training_config(options.preset, [*overrides, BASELINE], sources)
    baseline = trained(untruncated, options.outdir, f"{config.preset}-baseline")
    rows = compare(ours, baseline, config, count("--n", options.n), options.text, options.repeats)
    table(f"compare {options.preset}", rows)
    if options.write:
        options.write.parent.mkdir(parents=True, exist_ok=True)
        options.write.write_text("".join(json.dumps(row) + "\n" for row in rows))


if __name__ == "__main__":
    try:
        main()
    except (InputError, Interrupted) as error:
        print(f"error: {error}" if isinstance(error, InputError) else error, file=sys.stderr)
        sys.exit(error.status)
