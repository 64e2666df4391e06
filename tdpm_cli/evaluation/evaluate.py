"""tdpm eval: how far samples lie from the data, under a name that says how it was measured."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config import registry
from tdpm_cli.config.schema import Config
from tdpm_cli.evaluation.diagnose import diagnose
from tdpm_cli.evaluation.inputs import Examples, Input, Statistics, config_of, of_model, of_training, open_input
from tdpm_cli.evaluation.protocol import protocol_of
from tdpm_cli.evaluation.report import neighbours, write_report
from tdpm_cli.evaluation.scorer import Found, Score, Scorer, check_fit, extractor, judge_of, merge
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import say, table
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, writable, write_text
from tdpm_cli.runtime.html import Page
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import settings_of


@distributed.joined()
def evaluate(
    images: str | Path | None = None,
    *,
    model: Path | None = None,
    sampling: Mapping[str, Any] | None = None,
    seed: int | None = None,
    repeats: int = 1,
    ref: str | Path | None = None,
    n: int | None = None,
    features: str | None = None,
    weights: Path | None = None,
    fid: bool = False,
    extras: Collection[str] = (),
    text: str | None = None,
    diagnosis: bool = False,
    cache: bool = True,
    json_file: Path | None = None,
    report: Path | None = None,
) -> dict[str, Any]:
    """Score `images`, or the n examples that `model` gives, against the data they were trained on, or against `ref`.

    `sampling` goes over the model's sample settings; `repeats` scores so many seeds, from `seed` on. `features` is
    a name, or "name:weights". Images get their Fréchet distance (`fid` insists on it), points the sliced Wasserstein
    distance, and both the `extras`, of `scorer.DEFINITIONS`. `text` names features that tell how well images fit their
    captions. Returns the scores and all that they depend on. Raises
    InputError for input that does not fit.
    """
    writable("--json", json_file)
    writable("--report", report)
    if report:
        Page("")  # what is missing is better known before the work
    device = precision.device()
    sets: list[Input]
    if images is not None:
        _refuse_redrawing(str(images), model, {"seed": seed, **(sampling or {})}, repeats, diagnosis)
        sets = [open_input("IMAGES", str(images))]
    else:
        seed = seed or 0
        loaded = build.load(model, device)
        settings = settings_of(loaded.components, **(sampling or {}))
        count = n or loaded.components.config.eval.n
        sets = [of_model(loaded, settings, seed + k, count, device) for k in range(repeats)]
    config = config_of(sets[0])
    reference = _reference(ref, config, sets[0])
    learned: Examples | None = None
    if diagnosis and config:
        if ref is None and isinstance(reference, Examples):
            learned = reference
        else:
            learned = of_training(config, sets[0].text, "--diagnose starts from them")
    points = isinstance(sets[0], Examples) and len(sets[0].shape) != 3
    check_fit(sets[0], reference, points, extras)
    extract, judge = _extractor(sets[0], reference, config, features, weights, fid, device), judge_of(text, device)
    if images is not None:
        sets = [_chosen(sets[0], n, config)]
    scorer = Scorer(reference, extract, judge=judge, batch=config.eval.batch if config else 64, extras=extras,
                    cache=cache)  # fmt: skip

    found = [scorer.score(each) for each in sets]
    merged, classes = merge(found)
    result = {
        "images": sets[0].text,
        "scores": {score.name: score.value for score in merged},
        "per_class": {name: score.value for name, score in classes.items()},
        "standard_deviations" if repeats > 1 else "standard_errors": {
            score.name: score.error for score in (*merged, *classes.values()) if score.error is not None
        },
        "repeats": [{score.name: score.value for score in each.scores} for each in found],
        "protocol": protocol_of(scorer, sets, found),
    }
    _show(sets[0], found, merged, classes, scorer)
    if learned is not None:
        told = diagnose(loaded, settings, learned, scorer, seed or 0, found[0].n, device)
        result["diagnosis"] = asdict(told) | {"advice": told.advice, "rows": told.rows}
        table("diagnosis", told.rows)
        say(told.advice)
    if not distributed.is_first():
        return result
    if json_file:
        write_text(json_file, json.dumps(result, indent=1))
        say(f"written: {json_file}")
    _draw_neighbours(sets[0], reference, found[0], images)
    if report:
        write_report(report, sets[0], found[0], merged, classes, scorer, result)
        say(f"report: {report}")
    manifest = sets[0].manifest if isinstance(sets[0], Examples) else None
    source = Path(manifest["model"]) if manifest else None
    drew = model or (source and (run_of(source) or source))
    say(f"next: tdpm sweep {f'--model {drew} ' if drew else ''}--steps 1,2,4,8,16")
    return result


def write_statistics(
    path: str, out: Path, *, features: str | None = None, weights: Path | None = None, cache: bool = True
) -> None:
    """Write mean and covariance of the features of the images in `path`, in float64, as clean-fid, EDM and
    pytorch-fid read them: `mu`, `sigma`; and beside them `protocol`, JSON of how they were made."""
    if out.suffix != ".npz":
        raise InputError(f"--out {out}: statistics are written as .npz; name the file so")
    writable("--out", out)
    given = open_input("--ref-only", path)
    if isinstance(given, Statistics) or len(given.shape) != 3:
        raise InputError(f"--ref-only {path}: it holds no images; give a folder, a zip or an .npz of images")
    scorer = Scorer(given, extractor(features or "inception", weights, precision.device()), cache=cache)
    summary = scorer.summary
    says = {**scorer.protocol["reference"], "features": scorer.protocol["features"]}
    with replacing(out) as part, part.open("wb") as file:
        np.savez(file, mu=summary.mean.numpy(), sigma=summary.covariance.numpy(), protocol=np.array(json.dumps(says)))
    say(f"written: {out}, {summary.count:,} images\nnext: tdpm eval --fid --ref {out} samples/")


def _refuse_redrawing(
    images: str, model: Path | None, sampling: Mapping[str, Any], repeats: int, diagnosis: bool
) -> None:
    """Raise InputError for what only a model can do."""
    if model is not None:
        raise InputError(f"IMAGES {images} and --model {model}: give one of them")
    given = [f"--{key}" for key, value in sampling.items() if value is not None]
    given += ["--repeats"] * (repeats > 1) + ["--diagnose"] * diagnosis
    if given:
        raise InputError(f"{', '.join(given)}: images are not drawn again; give --model RUN instead of {images}")


def _reference(ref: str | Path | None, config: Config | None, samples: Input) -> Input:
    if ref is not None:
        return open_input("--ref", str(ref))
    if config is None:
        raise InputError(f"{samples.text} has no samples.json that names its training data; give --ref PATH")
    return of_training(config, samples.text)


def _extractor(
    samples: Input, reference: Input, config: Config | None, features: str | None, weights: Path | None, fid: bool,
    device: torch.device,
) -> Any:  # fmt: skip
    """The features that images are compared by, or None for points."""
    if isinstance(samples, Examples) and len(samples.shape) != 3:
        if fid or features:
            raise InputError(f"{'--fid' if fid else '--features'}, but {samples.text} holds points, not images; "
                             "leave it out for their sliced Wasserstein distance")  # fmt: skip
        return None
    theirs = [side.protocol["features"] for side in (samples, reference)
              if isinstance(side, Statistics) and side.protocol]  # fmt: skip
    if features is None and isinstance(samples, Statistics) and isinstance(reference, Statistics):
        return OfStatistics(theirs[0] if theirs else {"name": "features"})
    if features is None and theirs and theirs[0]["name"] not in registry.names("features"):
        raise InputError(f"the statistics are of {theirs[0]['name']!r}; name those features with --features NAME:PATH")
    return extractor(features or (config.eval.features if config else theirs[0]["name"] if theirs else "inception"),
                     weights, device)  # fmt: skip


@dataclass(frozen=True)
class OfStatistics:
    """The features of two files of statistics: nothing is left to extract."""

    protocol: dict[str, Any]


def _chosen(samples: Input, n: int | None, config: Config | None) -> Input:
    """The n of a stored set that are scored: the first of `tdpm sample`'s, and of others some drawn at random."""
    if isinstance(samples, Statistics):
        if n is not None:
            raise InputError(f"--n {n}, but {samples.text} holds statistics, of all that they were made from")
        return samples
    if n is not None and n > len(samples):
        raise InputError(f"--n is {n:,}, but {samples.text} holds {len(samples):,}; make more, or ask for fewer")
    limit = n or (config.eval.n if config else len(samples))
    return samples.among(range(min(limit, len(samples)))) if samples.manifest else samples.some(limit)


def _show(
    samples: Input, found: Sequence[Found], merged: Sequence[Score], classes: Mapping[str, Score], scorer: Scorer
) -> None:
    manifest = samples.manifest if isinstance(samples, Examples) else None
    nfe = manifest.get("nfe_text", "–") if manifest else "–"
    over = f", mean ± sd of {len(found)} seeds" if len(found) > 1 else ""
    reference = f"{scorer.reference.text} ({scorer.summary.count:,})"
    rows = [{"metric": score.name, "score": score.text, "n": f"{found[0].n:,}", "NFE": nfe, "reference": reference}
            for score in merged]  # fmt: skip
    table(f"tdpm eval {samples.text}{over}", rows)
    if classes:
        table(f"by class{over}", [{"class": name, "distance": score.text} for name, score in classes.items()])
    for side, broken in (("samples", found[0].broken), ("reference", scorer.summary.broken)):
        if broken:
            say(f"left out of the {side}, for they cannot be decoded: {'; '.join(broken)}")


def _draw_neighbours(samples: Input, reference: Input, found: Found, images: str | Path | None) -> None:
    """A picture of the samples nearest to training images, beside the samples or in the run."""
    if not found.neighbours or not isinstance(samples, Examples) or not isinstance(reference, Examples):
        return
    if len(samples.shape) == 3:
        place = Path(samples.text).resolve()
        inside = images is None and place.is_dir()
        path = place / "nearest.png" if inside else place.with_name(f"{place.stem}-nearest.png")
        say(f"nearest neighbours: {pictures.save(neighbours(samples, reference, found), path)}")
