"""`tdpm eval`: score samples against data."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    EVALUATION,
    LARGEST_SEED,
    OUTPUT,
    SAMPLING,
    Cache,
    Features,
    FeatureWeights,
    Kid,
    Metrics,
    Model,
    OverwriteFile,
    Prdc,
    Processes,
    Reference,
    Repeats,
    Report,
    ScoredN,
    Settings,
    TextScore,
    confirms,
    in_processes,
    optional_count,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.external import Confirmation

Scored = Annotated[
    Optional[str],
    typer.Argument(help="Samples, images, an .npz, or a preset's name.", show_default="none: --model draws samples"),
]
Fid = Annotated[bool, typer.Option("--fid", help="Same as --metrics fid, the default.", rich_help_panel=EVALUATION)]
Memorised = Annotated[
    bool, typer.Option("--memorised", help="Fraction of samples near a training image.", rich_help_panel=EVALUATION)
]
PerClass = Annotated[bool, typer.Option("--per-class", help="Distance of each class.", rich_help_panel=EVALUATION)]
Diagnose = Annotated[
    bool, typer.Option("--diagnose", help="Whether denoiser or prior limits quality.", rich_help_panel=EVALUATION)
]
FirstSeed = Annotated[
    Optional[int],
    typer.Option(min=0, max=LARGEST_SEED, help="First seed of --model.", show_default="0", rich_help_panel=SAMPLING),
]
StatisticsOf = Annotated[
    Optional[str], typer.Option(help="Only write statistics of these images.", rich_help_panel=OUTPUT)
]
StatisticsFile = Annotated[
    Optional[Path], typer.Option(help="The .npz that --ref-only writes.", rich_help_panel=OUTPUT)
]


@confirms
@sampling_options("steps", "spacing", "sampler", "guidance_scale", "prior_guidance_scale")
def evaluate(
    *,
    images: Scored = None,
    metrics: Metrics = None,
    fid: Fid = False,
    kid: Kid = False,
    prdc: Prdc = False,
    memorised: Memorised = False,
    per_class: PerClass = False,
    text: TextScore = None,
    diagnose: Diagnose = False,
    features: Features = None,
    weights: FeatureWeights = None,
    ref: Reference = None,
    n: ScoredN = None,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    seed: FirstSeed = None,
    repeats: Repeats = 1,
    json: Annotated[Optional[Path], typer.Option(help="JSON file to write.", rich_help_panel=OUTPUT)] = None,
    report: Report = None,
    nproc: Processes = 1,
    cache: Cache = True,
    ref_only: StatisticsOf = None,
    out: StatisticsFile = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Score samples against the data."""
    from tdpm_cli.evaluation.options import CLASSES_METRIC, EvaluateOptions, StatisticsOptions
    from tdpm_cli.evaluation.sources import check_source
    from tdpm_cli.runtime.errors import InputError

    if (ref_only is None) != (out is None):
        raise InputError("--ref-only PATH and --out FILE.npz go together: give both or neither")
    if ref_only is not None and (images is not None or n is not None):
        raise InputError("--ref-only uses all images of its PATH: leave out IMAGES and --n")
    number = optional_count("--n", n)
    for option, source in (("IMAGES", images), ("--ref", ref), ("--ref-only", ref_only)):
        if source is not None:
            check_source(option, source)
    if images is None and ref_only is None:
        require_model(model)
    flags = {"fid": fid, "kid": kid, "prdc": prdc, "memorised": memorised, CLASSES_METRIC: per_class}
    chosen = [*split_list(metrics), *(name for name, is_set in flags.items() if is_set)]
    options = EvaluateOptions(
        model=model, external=external, seed=seed, repeats=repeats, sampling=sampling, ref=ref, n=number,
        features=features, weights=weights, metrics=chosen, text=text, diagnose=diagnose, cache=cache, json_file=json,
        report=report, overwrite=overwrite,
    )  # fmt: skip
    from tdpm_cli.evaluation.evaluate import evaluate as run
    from tdpm_cli.evaluation.evaluate import write_statistics

    if ref_only is not None and out is not None:
        write_statistics(ref_only, StatisticsOptions(
            out=out, external=external, features=features, weights=weights, cache=cache, overwrite=overwrite,
        ))  # fmt: skip
        return
    in_processes(nproc)
    run(images, options)
