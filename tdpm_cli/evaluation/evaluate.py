"""tdpm eval: score samples against a reference, and write the scores with everything that they depend on."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config import registry
from tdpm_cli.config.external import MODEL, is_remembered
from tdpm_cli.config.schema import Config
from tdpm_cli.evaluation.checks import check_fit
from tdpm_cli.evaluation.diagnose import diagnose
from tdpm_cli.evaluation.examples import Examples, Input, Statistics
from tdpm_cli.evaluation.extractors import Extractor, StatisticsFeatures, load_extractor, load_text_extractor
from tdpm_cli.evaluation.inputs import SampledModel, config_of, open_input, samples_of, training_data
from tdpm_cli.evaluation.options import EvaluateOptions, StatisticsOptions
from tdpm_cli.evaluation.protocol import protocol_of
from tdpm_cli.evaluation.report import EvaluationReport
from tdpm_cli.evaluation.results import Merged, Scores, merge
from tdpm_cli.evaluation.scorer import Scorer, metrics_of
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import next_command, print_line, table
from tdpm_cli.runtime.destinations import check_file
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, replacing, write_text
from tdpm_cli.runtime.html import Page
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import settings_of

BATCH = 64  # images whose features are extracted at a time, if no preset sets another number
DEFAULT_FEATURES = "inception"


@distributed.joined()
def evaluate(images: str | Path | None, options: EvaluateOptions) -> Json:
    """Score `images`, or samples of `options.model` if None, and return the scores with their protocol.

    Images are scored by the Fréchet distance of features, points by the sliced Wasserstein distance, and both by
    `options.metrics`. Raises InputError for input that does not fit.
    """
    _check_outputs(images, options)
    device = devices.device()
    model = None
    if images is not None:
        _check_stored(str(images), options)
        sets: list[Input] = [open_input("IMAGES", str(images))]
    else:
        model, sets = _sample_sets(options, device)
    config = config_of(sets[0], options.external)
    reference = _reference(sets[0], config, options)
    real_examples = _real_examples(sets[0], reference, config, options)
    scorer = _scorer(sets[0], reference, config, options, device)
    if images is not None:
        sets = [_selected(sets[0], options.n, config)]

    results = [scorer.score(samples) for samples in sets]
    merged = merge(results)
    result = _result(sets, results, merged, scorer)
    report = EvaluationReport(sets[0], results[0], merged, scorer, result, _run(sets[0], model, options))
    report.print()
    if model is not None and real_examples is not None:
        diagnosis = diagnose(model, real_examples, scorer, results[0].n, scored=results[0])
        result["diagnosis"] = diagnosis.to_dict()
        table("diagnosis", diagnosis.rows)
        print_line(diagnosis.advice)
    if distributed.is_first():
        _write(report, images is not None, options)
        print_line(_next_command(sets[0], options.model))
    return result


def write_statistics(path: str, options: StatisticsOptions) -> None:
    """Write mean `mu` and covariance `sigma` of the features of the images in `path`, in float64, to an .npz.

    clean-fid, EDM and pytorch-fid read such files. `protocol` is JSON of how the statistics were computed.
    """
    out = options.out
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: statistics are written as .npz; give the file this suffix")
    check_file("--out", out, [path], overwrite=options.overwrite)
    images = open_input("--ref-only", path)
    if isinstance(images, Statistics) or not images.is_image:
        raise InputError(f"--ref-only {path}: contains no images; accepted: a folder, a zip or an .npz of images")
    extractor = load_extractor(
        options.features or DEFAULT_FEATURES, options.weights, devices.device(), external=options.external
    )
    scorer = Scorer(images, extractor, cache=options.cache)
    summary = scorer.summary
    protocol = {**scorer.protocol["reference"], "features": scorer.protocol["features"]}
    with replacing(out) as part, part.open("wb") as file:
        np.savez(
            file, mu=summary.mean.numpy(), sigma=summary.covariance.numpy(), protocol=np.array(json.dumps(protocol))
        )
    print_line(f"written: {out}, {summary.count:,} images")
    print_line(next_command("tdpm eval --fid --ref", out, "samples/"))


def _check_outputs(images: str | Path | None, options: EvaluateOptions) -> None:
    """Raise InputError, before the work, for files that may not be written."""
    for option, path in (("--json", options.json_file), ("--report", options.report)):
        check_file(option, path, [images, options.ref], models=[options.model], overwrite=options.overwrite)
    if options.report:
        Page("")  # raises for a missing package


def _check_stored(images: str, options: EvaluateOptions) -> None:
    """Raise InputError for options that only samples of a model can have."""
    if options.model is not None:
        raise InputError(f"IMAGES {images} and --model {options.model} are both set; choose one of them")
    unfit = [f"--{key.replace('_', '-')}" for key, value in options.sampling.items() if value is not None]
    unfit += ["--seed"] * (options.seed is not None)
    unfit += ["--repeats"] * (options.repeats > 1) + ["--diagnose"] * options.diagnose
    if unfit:
        raise InputError(f"{', '.join(unfit)}: {images} are stored images; use --model RUN to draw samples")


def _sample_sets(options: EvaluateOptions, device: torch.device) -> tuple[SampledModel, list[Input]]:
    """Load the model, and return one set of samples for each seed; they are drawn when they are read."""
    loaded = build.load_model(options.model, device, options.external)
    settings = settings_of(loaded.components, **options.sampling)
    model = SampledModel(loaded, settings, options.seed or 0)
    n = options.n or loaded.components.config.eval.n
    seeds = range(model.seed, model.seed + options.repeats)
    return model, [samples_of(loaded, settings, seed, n) for seed in seeds]


def _reference(samples: Input, config: Config | None, options: EvaluateOptions) -> Input:
    if options.ref is not None:
        return open_input("--ref", str(options.ref))
    if config is None:
        raise InputError(f"{samples.text} has no samples.json, which names the training data; use --ref PATH")
    return training_data(config, samples.text, options.external)


def _real_examples(
    samples: Input, reference: Input, config: Config | None, options: EvaluateOptions
) -> Examples | None:
    """Return the training data for --diagnose, which starts from them; None without that option."""
    if not options.diagnose or config is None:
        return None
    if options.ref is None and isinstance(reference, Examples):
        return reference
    return training_data(config, samples.text, options.external, "--diagnose starts from them")


def _scorer(
    samples: Input, reference: Input, config: Config | None, options: EvaluateOptions, device: torch.device
) -> Scorer:
    points = isinstance(samples, Examples) and not samples.is_image
    if points and options.features:
        raise InputError(f"--features {options.features}: {samples.text} contains points; leave the option out")
    metrics = metrics_of(options.metrics, points, options.text is not None, samples.text)
    check_fit(samples, reference, points, metrics)
    extractor = None if points else _extractor((samples, reference), config, options, device)
    text = load_text_extractor(options.text, device, options.external) if options.text else None
    batch = config.eval.batch if config else BATCH
    return Scorer(reference, extractor, text=text, batch=batch, metrics=metrics, cache=options.cache)


def _extractor(
    sides: Sequence[Input], config: Config | None, options: EvaluateOptions, device: torch.device
) -> Extractor:
    """Load the features of --features, or else those of a file of statistics, of the preset, or Inception."""
    statistics = [side for side in sides if isinstance(side, Statistics)]
    protocols = [side.protocol["features"] for side in statistics if side.protocol]
    if options.features is None and len(statistics) == len(sides):
        return StatisticsFeatures(protocols[0] if protocols else {"name": "features"})
    name = protocols[0]["name"] if protocols else None
    if options.features is None and name is not None and name not in registry.names("features"):
        raise InputError(f"the statistics are of the features {name!r}; set those with --features NAME:PATH")
    default = config.eval.features if config else name or DEFAULT_FEATURES
    return load_extractor(options.features or default, options.weights, device, external=options.external)


def _run(samples: Input, model: SampledModel | None, options: EvaluateOptions) -> Path | None:
    """Return the run of the model that drew the samples; None without one, or if only their manifest names it."""
    manifest = samples.manifest if isinstance(samples, Examples) else None
    if manifest is None:
        return None
    known = model is not None or options.external.everything or is_remembered(MODEL, str(manifest["model"]))
    return run_of(Path(manifest["model"])) if known else None


def _selected(samples: Input, n: int | None, config: Config | None) -> Input:
    """Return the n stored samples that are scored: the first of those of `tdpm sample`, of others a random part."""
    if isinstance(samples, Statistics):
        if n is not None:
            raise InputError(f"--n {n}: {samples.text} contains statistics, whose number of images is fixed")
        return samples
    if n is not None and n > len(samples):
        raise InputError(f"--n is {n:,}, but {samples.text} contains {len(samples):,}; reduce --n or sample more")
    limit = n or (config.eval.n if config else len(samples))
    return samples.subset(range(min(limit, len(samples)))) if samples.manifest else samples.random_subset(limit)


def _result(sets: Sequence[Input], results: Sequence[Scores], merged: Merged, scorer: Scorer) -> Json:
    """Return what --json writes."""
    errors = {score.name: score.error for score in merged.all if score.error is not None}
    return {
        "written_by": "tdpm eval",
        "images": sets[0].text,
        "scores": {score.name: score.value for score in merged.overall},
        "per_class": {name: score.value for name, score in merged.classes.items()},
        "standard_deviations" if len(sets) > 1 else "standard_errors": errors,
        "repeats": [{score.name: score.value for score in one.overall} for one in results],
        "protocol": protocol_of(scorer, sets, results),
    }


def _write(report: EvaluationReport, stored: bool, options: EvaluateOptions) -> None:
    """Write JSON, the picture of nearest neighbours, and the page."""
    if options.json_file:
        write_text(options.json_file, json.dumps(report.result, indent=1))
        print_line(f"written: {options.json_file}")
    if path := report.write_pairs(beside=stored):
        print_line(f"nearest neighbours: {path}")
    if options.report:
        report.write(options.report)
        print_line(f"report: {options.report}")


def _next_command(samples: Input, model: Path | None) -> str:
    manifest = samples.manifest if isinstance(samples, Examples) else None
    source = Path(manifest["model"]) if manifest else None
    model = model or (source and (run_of(source) or source))
    return next_command("tdpm sweep", *(["--model", model] if model else []), "--steps", "1,2,4,8,16")
