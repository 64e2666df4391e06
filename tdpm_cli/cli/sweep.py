"""`tdpm sweep`: score every combination of sampling options."""

from pathlib import Path
from typing import Annotated, Optional, get_args

import typer

from tdpm_cli.cli.options import (
    MODEL,
    OUTPUT,
    SAMPLING,
    Cache,
    Features,
    FeatureWeights,
    Kid,
    Metrics,
    OverwriteFile,
    Prdc,
    Processes,
    Reference,
    Repeats,
    Report,
    ScoredN,
    Seed,
    Settings,
    TextScore,
    confirms,
    counts,
    existing,
    in_processes,
    lists_of_sampling_options,
    nonempty_list,
    optional_count,
    split_list,
)
from tdpm_cli.config.constants import Start
from tdpm_cli.config.external import Confirmation

Models = Annotated[
    Optional[list[Path]],
    typer.Option(
        help="Run, checkpoint or exported file; repeatable.", show_default="the newest run", rich_help_panel=MODEL
    ),
]
SweepFolder = Annotated[
    Optional[Path],
    typer.Option(help="Folder to write.", show_default="sweep, in the first model's run", rich_help_panel=OUTPUT),
]


@confirms
@lists_of_sampling_options("spacing", "sampler", "guidance_scale", "prior_guidance_scale")
def sweep(
    *,
    steps: Annotated[
        str, typer.Option(help="Reverse steps, such as 1,2,4,8,16.", rich_help_panel=SAMPLING)
    ] = "1,2,4,8,16",
    model: Models = None,
    external: Confirmation,
    sampling: Settings,
    start: Annotated[
        str, typer.Option(help="Start of sampling: prior, data, gaussian.", rich_help_panel=SAMPLING)
    ] = "prior",
    n: ScoredN = None,
    seed: Seed = 0,
    repeats: Repeats = 1,
    metrics: Metrics = None,
    kid: Kid = False,
    prdc: Prdc = False,
    text: TextScore = None,
    features: Features = None,
    weights: FeatureWeights = None,
    ref: Reference = None,
    nproc: Processes = 1,
    cache: Cache = True,
    out: SweepFolder = None,
    report: Report = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Score combinations of sampling options; run again to continue."""
    from tdpm_cli.checkpoints.runs import newest_run
    from tdpm_cli.runtime.errors import one_of

    accepted = ", ".join(get_args(Start))
    all_steps = counts("--steps", nonempty_list("--steps", steps))
    starts = nonempty_list("--start", start, f"one or more of {accepted}, between commas")
    for value in starts:
        one_of("--start", value, get_args(Start))
    number = optional_count("--n", n)
    for path in model or [newest_run()]:
        existing("--model")(path)

    from tdpm_cli.evaluation.options import SweepOptions

    options = SweepOptions(
        steps=all_steps, models=model or [], external=external, spacings=sampling.get("spacing", ()),
        samplers=sampling.get("sampler", ()), starts=starts, guidance_scales=sampling.get("guidance_scale", ()),
        prior_guidance_scales=sampling.get("prior_guidance_scale", ()), n=number, seed=seed, repeats=repeats,
        ref=ref, features=features, weights=weights, out=out, report=report, cache=cache, text=text,
        overwrite=overwrite,
        metrics=[*split_list(metrics), *["kid"] * kid, *["prdc"] * prdc],
    )  # fmt: skip

    from tdpm_cli.evaluation.sweep import sweep as run

    in_processes(nproc)
    run(options)
