"""tdpm sweep: quality against network calls, for models, samplers, spacings, starts and guidance scales."""

import itertools
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import cast, get_args

import torch

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.evaluation.checks import check_fit
from tdpm_cli.evaluation.examples import Examples, Input
from tdpm_cli.evaluation.extractors import load_extractor, load_text_extractor
from tdpm_cli.evaluation.inputs import model_name, open_input, samples_of, training_data
from tdpm_cli.evaluation.options import SweepOptions
from tdpm_cli.evaluation.protocol import protocol_of
from tdpm_cli.evaluation.results import merge
from tdpm_cli.evaluation.scorer import Scorer, metrics_of
from tdpm_cli.evaluation.sweep_report import (
    START_TEXTS,
    SWEEP_CSV,
    SWEEP_JSON,
    SWEEP_PNG,
    add_sweep,
    csv_text,
    distance_of,
    plot,
    read_sweep,
    table_rows,
)  # fmt: skip
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed, plots
from tdpm_cli.runtime.console import next_command, print_line, table
from tdpm_cli.runtime.destinations import check_destination, check_file
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import Json, json_sha256, write_text, writing
from tdpm_cli.runtime.html import Page
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import nfe, settings_of


@dataclass(frozen=True)
class Combination:
    """One row of a sweep: a model, by its position, its sampling options, and where the sampler starts."""

    model: int
    loaded: build.LoadedModel
    settings: SampleConfig
    start: Start

    @property
    def text(self) -> str:
        """The row, for messages."""
        return f"{model_name(self.loaded)}, {self.settings.sampler}, {START_TEXTS[self.start]}"


@distributed.joined()
def sweep(options: SweepOptions) -> list[Json]:
    """Score every combination of the options, and return a row for each.

    Writes `sweep.json`, `sweep.csv` and `sweep.png` to `options.out`, by default beside the first model, and saves
    after every row, so that a repeated command continues. Raises InputError for input that does not fit.
    """
    if options.report:
        Page("")  # raises, before the work, for a missing package
        check_file("--report", options.report, [options.ref], models=options.models, overwrite=options.overwrite)
    device = devices.device()
    sources: Sequence[Path | None] = options.models or [None]
    models = [build.load_model(source, device, options.external) for source in sources]
    plan = _plan(models, options)
    data = _training_data(models, options)
    reference = open_input("--ref", str(options.ref)) if options.ref is not None else _common(data, models)
    scorer = _scorer(models[0], reference, options, device)
    out = options.out or _default_folder(models[0])
    _check_folder(out, options)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    count = _count(data, options, models[0].components.config.eval.n)
    samples = partial(_samples, data=data, count=count, options=options)
    check_fit(samples(plan[0])[0], reference, scorer.extractor is None, scorer.metrics)

    path = out / SWEEP_JSON
    earlier = distributed.from_first(lambda: read_sweep(path) if path.is_file() else [])
    known = {row["key"]: row for row in earlier}
    protocol_key, rows = _protocol_key(scorer, count, options), list[Json]()
    for combination in plan:
        sets = samples(combination)
        key = json_sha256([protocol_key, [examples.manifest for examples in sets]])
        if key not in known:
            print_line(f"{len(rows) + 1} of {len(plan)}: {combination.text}, {combination.settings.steps} steps")
            known[key] = {"key": key, **_row(combination, sets, scorer, protocol_key)}
        rows.append(known[key])
        if distributed.is_first():
            write_text(path, json.dumps({"written_by": "tdpm sweep", "rows": list(known.values())}, indent=1))
    if distributed.is_first():
        _report(rows, reference, out, options.report)
    return rows


def _plan(models: Sequence[build.LoadedModel], options: SweepOptions) -> list[Combination]:
    """Return every combination. Raises InputError for options that do not fit a model."""
    for start in options.starts:
        one_of("--start", start, get_args(Start))
    or_preset = lambda values: [*values] or [None]
    combinations = itertools.product(
        enumerate(models), or_preset(options.spacings), or_preset(options.samplers), options.starts,
        or_preset(options.guidance_scales), or_preset(options.prior_guidance_scales), sorted(set(options.steps)),
    )  # fmt: skip
    return [
        Combination(k, loaded, settings_of(
            loaded.components, spacing=spacing, sampler=sampler, guidance_scale=guidance_scale,
            prior_guidance_scale=prior_guidance_scale, steps=steps,
        ), cast(Start, start))
        for (k, loaded), spacing, sampler, start, guidance_scale, prior_guidance_scale, steps in combinations
    ]  # fmt: skip


def _training_data(models: Sequence[build.LoadedModel], options: SweepOptions) -> list[Examples]:
    """Return the training data of each model if the sweep needs them: as the reference, or to start from."""
    starts_from_data = "data" in options.starts
    if options.ref is not None and not starts_from_data:
        return []
    advice = "--start data starts from them" if starts_from_data else "use --ref PATH"
    return [training_data(loaded.components.config, model_name(loaded), options.external, advice) for loaded in models]


def _common(data: Sequence[Examples], models: Sequence[build.LoadedModel]) -> Examples:
    """Return the training data that all models share. Raises InputError if they differ."""
    if len({examples.sha256() for examples in data}) > 1:
        listed = ", ".join(
            f"{model_name(loaded)}: {examples.text}" for loaded, examples in zip(models, data, strict=True)
        )
        raise InputError(f"the models were trained on different data ({listed}); use --ref PATH for all of them")
    return data[0]


def _scorer(first: build.LoadedModel, reference: Input, options: SweepOptions, device: torch.device) -> Scorer:
    components = first.components
    is_image = len(components.space.raw_shape) == 3
    metrics = metrics_of(options.metrics, not is_image, options.text is not None, reference.text)
    features = options.features or components.config.eval.features
    extractor = load_extractor(features, options.weights, device, external=options.external) if is_image else None
    text = load_text_extractor(options.text, device, options.external) if options.text else None
    return Scorer(reference, extractor, text=text, batch=components.config.eval.batch, metrics=metrics,
                  cache=options.cache)  # fmt: skip


def _count(data: Sequence[Examples], options: SweepOptions, default: int) -> int:
    """Return the number of samples of each row, which real examples to start from may limit."""
    count = options.n or default
    fewest = min(map(len, data), default=count) if "data" in options.starts else count
    if fewest < count:
        print_line(f"note: n is {fewest:,}, the number of real examples to start from")
    return min(fewest, count)


def _samples(combination: Combination, data: Sequence[Examples], count: int, options: SweepOptions) -> list[Examples]:
    """Return one set of samples for each seed; they are drawn when they are read."""
    first = options.seed or 0
    start_from = data[combination.model].random_subset(count).data if combination.start == "data" else None
    return [
        samples_of(combination.loaded, combination.settings, seed, count, combination.start, start_from)
        for seed in range(first, first + options.repeats)
    ]


def _protocol_key(scorer: Scorer, count: int, options: SweepOptions) -> str:
    """Return a hash of everything that makes rows comparable."""
    return json_sha256([count, options.seed or 0, options.repeats, scorer.protocol])


def _row(combination: Combination, sets: Sequence[Examples], scorer: Scorer, protocol_key: str) -> Json:
    """Score one combination."""
    settings, model = combination.settings, combination.loaded.components.model
    results = [scorer.score(samples) for samples in sets]
    scores = merge(results).overall
    return {
        "model": model_name(combination.loaded),
        "sampler": settings.sampler,
        "spacing": settings.spacing,
        "start": combination.start,
        "guidance_scale": settings.guidance_scale,
        "prior_guidance_scale": settings.prior_guidance_scale,
        "steps": settings.steps,
        "nfe": nfe(model, settings, combination.start),
        "metric": scores[0].name,
        "scores": {score.name: score.value for score in scores},
        "errors": {score.name: score.error for score in scores if score.error is not None},
        "protocol_key": protocol_key,
        "protocol": protocol_of(scorer, sets, results),
    }


def _report(rows: Sequence[Json], reference: Input, out: Path, report: Path | None) -> None:
    """Write and print the rows as table, plot and page, and the command that samples with the best of them."""
    write_text(out / SWEEP_CSV, csv_text(rows))
    table(f"tdpm sweep, n = {rows[0]['protocol']['n']:,}, reference {reference.text}", table_rows(rows))
    print_line(f"written: {out / SWEEP_JSON}, {out / SWEEP_CSV}")
    try:
        plots.save(plot(rows), out / SWEEP_PNG)
        print_line(f"plot: {out / SWEEP_PNG}")
    except InputError as error:  # matplotlib is optional
        print_line(f"note: {error}")
    if report:
        page = Page(f"tdpm sweep {', '.join(dict.fromkeys(row['model'] for row in rows))}")
        add_sweep(page, rows)
        page.details("Protocol", rows[0]["protocol"])
        page.write(report)
        print_line(f"report: {report}")
    print_line(_next_command(rows))


def _next_command(rows: Sequence[Json]) -> str:
    best = min((row for row in rows if row["start"] == "prior"), default=rows[0], key=distance_of)
    options = ["--steps", best["steps"], "--spacing", f"{best['spacing']:g}", "--sampler", best["sampler"]]
    for key in ("guidance_scale", "prior_guidance_scale"):
        if len({row[key] for row in rows}) > 1:
            options += [f"--{key.replace('_', '-')}", f"{best[key]:g}"]
    return next_command("tdpm sample --model", best["model"], *options, "--n", "64", "samples/")


def _check_folder(out: Path, options: SweepOptions) -> None:
    """Raise InputError for a folder that overlaps the reference, or with files that a sweep did not write."""
    check_destination(out, [options.ref], option="--out")
    if not (out / SWEEP_JSON).is_file():
        for name in (SWEEP_JSON, SWEEP_CSV, SWEEP_PNG):
            if os.path.lexists(out / name):
                raise InputError(f"{out / name}: found a file that tdpm did not write; name another folder with --out")


def _default_folder(loaded: build.LoadedModel) -> Path:
    """Return a folder in the run, or beside a file of weights."""
    run = run_of(loaded.source)
    return run / "sweep" if run else loaded.source.with_suffix(".sweep")
