"""tdpm sweep: quality against network calls, for models, samplers, spacings, starts and guidance scales."""

import csv
import hashlib
import io
import itertools
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast, get_args

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.evaluation.inputs import Examples, Input, model_name, of_model, of_training, open_input
from tdpm_cli.evaluation.protocol import protocol_of
from tdpm_cli.evaluation.report import STARTS, add_sweep, is_best, read_sweep, sweep_plot, sweep_table
from tdpm_cli.evaluation.scorer import Score, Scorer, check_fit, extractor, judge_of, merge
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed, plots
from tdpm_cli.runtime.console import say, table
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import writable, write_text, writing
from tdpm_cli.runtime.html import Page
from tdpm_cli.sampling import build
from tdpm_cli.sampling.build import Loaded
from tdpm_cli.sampling.settings import nfe, settings_of

FILE = "sweep.json"


@distributed.joined()
def sweep(
    steps: Sequence[int],
    models: Sequence[Path] = (),
    *,
    spacings: Sequence[float] = (),
    samplers: Sequence[str] = (),
    starts: Sequence[str] = ("prior",),
    guidance_scales: Sequence[float] = (),
    prior_guidance_scales: Sequence[float] = (),
    n: int | None = None,
    seed: int = 0,
    repeats: int = 1,
    ref: str | Path | None = None,
    features: str | None = None,
    weights: Path | None = None,
    extras: Collection[str] = (),
    text: str | None = None,
    cache: bool = True,
    out: Path | None = None,
    report: Path | None = None,
) -> list[dict[str, Any]]:
    """Score every combination of the models' spacings, samplers, starts, scales and steps; return a row for each.

    `scales` guide the steps, and `prior_scales` the prior.

    Writes `sweep.json`, `sweep.csv` and `sweep.png` to `out`, by default beside the first model. After every row
    what is done is saved: the same command again continues. Raises InputError for input that does not fit.
    """
    if report:
        Page("")  # what is missing is better known before the work
        writable("--report", report)
    device = precision.device()
    loaded = [build.load(path, device) for path in models] or [build.load(device=device)]
    plan = _plan(loaded, steps, spacings, samplers, starts, guidance_scales, prior_guidance_scales)
    first = loaded[0].components.config
    data: list[Examples] = []
    if ref is None or "data" in starts:
        advice = "give --ref PATH" if "data" not in starts else "--start data starts from them"
        data = [of_training(each.components.config, model_name(each), advice) for each in loaded]
    reference = open_input("--ref", str(ref)) if ref is not None else _one_of(data, loaded)
    is_image = len(loaded[0].components.space.raw_shape) == 3
    extract = extractor(features or first.eval.features, weights, device) if is_image else None
    judge = judge_of(text, device)
    out = out or _beside(loaded[0])
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    count = n or first.eval.n
    if "data" in starts and (fewest := min(len(each) for each in data)) < count:
        say(f"note: n is {fewest:,}, for there are no more real examples to start from")
        count = fewest

    def drawn(each: Loaded, settings: SampleConfig, start: Start) -> list[Examples]:
        source = data[loaded.index(each)].some(count).data if start == "data" else None
        return [of_model(each, settings, seed + k, count, device, start, source) for k in range(repeats)]

    check_fit(of_model(loaded[0], plan[0][1], seed, count, device), reference, extract is None, extras)
    scorer = Scorer(reference, extract, judge=judge, batch=first.eval.batch, extras=extras, cache=cache)

    done = distributed.from_first(lambda: read_sweep(out / FILE) if (out / FILE).is_file() else [])
    before = {row["key"]: row for row in done}
    rows: list[dict[str, Any]] = []
    for each, settings, start in plan:
        sets = drawn(each, settings, start)
        judged = _hash([count, seed, repeats, scorer.protocol])
        key = _hash([judged, [examples.manifest for examples in sets]])
        row = before.get(key)
        if row is None:
            say(f"{len(rows) + 1} of {len(plan)}: {_name(each, settings, start)}, {settings.steps} steps")
            found = [scorer.score(examples) for examples in sets]
            row = {"key": key, **_row(each, settings, start, merge(found)[0]),
                   "protocol_key": judged, "protocol": protocol_of(scorer, sets, found)}  # fmt: skip
        rows.append(row)
        kept = {**before, **{made["key"]: made for made in rows}}
        if distributed.is_first():
            write_text(out / FILE, json.dumps({"rows": list(kept.values())}, indent=1))
    if distributed.is_first():
        _tell(rows, reference, out, report)
    return rows


def _tell(rows: Sequence[dict[str, Any]], reference: Input, out: Path, report: Path | None) -> None:
    """Write and print the rows as table, plot and page, and the command that samples as the best of them."""
    write_text(out / "sweep.csv", _csv(rows))
    if report:
        page = Page(f"tdpm sweep {', '.join(dict.fromkeys(row['model'] for row in rows))}")
        add_sweep(page, rows)
        page.details("Protocol", rows[0]["protocol"])
        page.write(report)
    table(f"tdpm sweep, n = {rows[0]['protocol']['n']:,}, against {reference.text}", sweep_table(rows))
    say(f"written: {out / FILE}, {out / 'sweep.csv'}")
    try:
        plots.save(sweep_plot(rows), out / "sweep.png")
        say(f"plot: {out / 'sweep.png'}")
    except InputError as error:  # matplotlib is optional: the table stands without it
        say(str(error))
    if report:
        say(f"report: {report}")
    best = min((row for row in rows if row["start"] == "prior"), default=rows[0], key=_distance)
    options = f"--steps {best['steps']} --spacing {best['spacing']:g} --sampler {best['sampler']}"
    for key in ("guidance_scale", "prior_guidance_scale"):
        if len({row[key] for row in rows}) > 1:
            options += f" --{key.replace('_', '-')} {best[key]:g}"
    say(f"next: tdpm sample --model {best['model']} {options} --n 64 samples/")


def _plan(
    loaded: Sequence[Loaded], steps: Sequence[int], spacings: Sequence[float], samplers: Sequence[str],
    starts: Sequence[str], guidance_scales: Sequence[float], prior_guidance_scales: Sequence[float],
) -> list[tuple[Loaded, SampleConfig, Start]]:  # fmt: skip
    """Every combination, checked."""
    for start in starts:
        one_of("--start", start, get_args(Start))
    every_sampler: list[str | None] = [*samplers] or [None]
    every_spacing: list[float | None] = [*spacings] or [None]
    every_scale: list[float | None] = [*guidance_scales] or [None]
    every_prior_guidance_scale: list[float | None] = [*prior_guidance_scales] or [None]
    plan = []
    for each, spacing, sampler, start, guidance_scale, prior_guidance_scale, count in itertools.product(
        loaded, every_spacing, every_sampler, starts, every_scale, every_prior_guidance_scale, sorted(set(steps))
    ):
        settings = settings_of(
            each.components,
            spacing=spacing,
            sampler=sampler,
            guidance_scale=guidance_scale,
            prior_guidance_scale=prior_guidance_scale,
            steps=count,
        )
        plan.append((each, settings, cast(Start, start)))
    return plan


def _one_of(data: Sequence[Examples], loaded: Sequence[Loaded]) -> Examples:
    """The data that all models learned from. Raises InputError where they differ."""
    contents = {examples.sha256(): examples for examples in data}
    if len(contents) > 1:
        listed = ", ".join(f"{model_name(each)}: {d.text}" for each, d in zip(loaded, data, strict=True))
        raise InputError(f"the models were trained on different data ({listed}); give --ref PATH for all of them")
    return data[0]


def _row(each: Loaded, settings: SampleConfig, start: Start, found: Sequence[Score]) -> dict[str, Any]:
    model = each.components.model
    of_prior = model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale)
    calls = nfe(model, settings) - (0 if start == "prior" else of_prior)
    return {
        "model": model_name(each),
        "sampler": settings.sampler,
        "spacing": settings.spacing,
        "start": start,
        "guidance_scale": settings.guidance_scale,
        "prior_guidance_scale": settings.prior_guidance_scale,
        "steps": settings.steps,
        "nfe": calls,
        "metric": found[0].name,
        "scores": {score.name: score.value for score in found},
        "errors": {score.name: score.error for score in found if score.error is not None},
    }


def _name(each: Loaded, settings: SampleConfig, start: Start) -> str:
    return ", ".join(filter(None, (model_name(each), settings.sampler, STARTS[start])))


def _distance(row: Mapping[str, Any]) -> float:
    return float(row["scores"][row["metric"]])


def _csv(rows: Sequence[Mapping[str, Any]]) -> str:
    text = io.StringIO()
    metrics = list(rows[0]["scores"])
    spread = "sd" if len(rows[0]["protocol"]["seeds"]) > 1 else "standard error"
    identity = ("model", "sampler", "spacing", "start", "guidance_scale", "prior_guidance_scale", "steps", "nfe")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*identity, "n", *itertools.chain(*((name, f"{spread} of {name}") for name in metrics)), "best"])
    for row in rows:
        values = itertools.chain(*((row["scores"][name], row["errors"].get(name, "")) for name in metrics))
        writer.writerow([*(row[key] for key in identity), row["protocol"]["n"], *values, int(is_best(row, rows))])
    return text.getvalue()


def _hash(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _beside(loaded: Loaded) -> Path:
    """A folder in the run, or beside a file."""
    run = run_of(loaded.source)
    return run / "sweep" if run else loaded.source.with_suffix(".sweep")
