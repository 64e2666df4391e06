"""Words and options of `tdpm sweep`."""

from pathlib import Path
from typing import Annotated, Optional, get_args

import typer

from tdpm_cli.cli.options import (
    Nproc,
    Shown,
    count,
    existing,
    in_processes,
    known_features,
    known_metrics,
    listed,
    numbers,
    some,
)
from tdpm_cli.config.constants import Start


def sweep(
    steps: Annotated[str, typer.Option(help="Reverse steps, such as 1,2,4,8,16.")] = "1,2,4,8,16",
    model: Annotated[
        Optional[list[Path]],
        typer.Option(help="A run, a checkpoint or an exported file; may be repeated.", show_default="the newest run"),
    ] = None,
    spacing: Annotated[Optional[str], Shown(help="Of the steps, such as 1,2.")] = None,
    sampler: Annotated[Optional[str], Shown(help="Such as ddim,dpmpp_2m.")] = None,
    start: Annotated[
        str, typer.Option(help="Where the chain starts: prior, data (the ceiling), gaussian; several by commas.")
    ] = "prior",
    guidance_scale: Annotated[Optional[str], Shown(help="Classifier-free guidance, such as 1,2,4.")] = None,
    prior_guidance_scale: Annotated[Optional[str], Shown(help="The same of the prior.")] = None,
    n: Annotated[Optional[str], Shown(help="Samples scored in each row.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="The first seed.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds in each row: mean ± sd.")] = 1,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            help="Metrics beside the distance, such as kid,prdc.",
            callback=known_metrics("--metrics"),
            show_default="the distance",
        ),
    ] = None,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance, too.")] = False,
    prdc: Annotated[bool, typer.Option("--prdc", help="Precision, recall, density and coverage, too.")] = False,
    text: Annotated[
        Optional[str],
        typer.Option(help="How well images fit their captions, too; as for eval.", callback=known_features("--text")),
    ] = None,
    features: Annotated[Optional[str], Shown(help="As for eval.", callback=known_features("--features"))] = None,
    weights: Annotated[Optional[Path], typer.Option(help="A local file or folder of the features' weights.")] = None,
    ref: Annotated[
        Optional[str], typer.Option(help="What to compare with.", show_default="the models' training data")
    ] = None,
    nproc: Nproc = 1,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep the features of references.")] = True,
    out: Annotated[
        Optional[Path], typer.Option(help="The folder to write to.", show_default="sweep in the first model's run")
    ] = None,
    report: Annotated[Optional[Path], typer.Option(help="Write a page (HTML) with table and plot there.")] = None,
) -> None:
    """Quality against network calls: table, CSV, JSON and plot. The same command again continues."""
    from tdpm_cli.checkpoints.runs import newest_run
    from tdpm_cli.config.schema import check_options
    from tdpm_cli.runtime.errors import one_of

    chosen = [count("--steps", word) for word in some("--steps", steps)]
    spacings, guidance_scales = numbers("--spacing", spacing), numbers("--guidance-scale", guidance_scale)
    prior_guidance_scales, number = (
        numbers("--prior-guidance-scale", prior_guidance_scale),
        count("--n", n) if n else None,
    )
    starts = some("--start", start)
    for word in starts:
        one_of("--start", word, get_args(Start))
    for word in listed(sampler):
        check_options({"sampler": word})
    for key, values in {
        "spacing": spacings,
        "guidance_scale": guidance_scales,
        "prior_guidance_scale": prior_guidance_scales,
    }.items():
        for value in values:
            check_options({key: value})
    for path in model or [newest_run()]:  # that there is one
        existing("--model")(path)

    from tdpm_cli.evaluation.options import SweepOptions
    from tdpm_cli.evaluation.sweep import sweep as run

    in_processes(nproc)
    flags = {"kid": kid, "prdc": prdc}
    run(SweepOptions(
        steps=chosen, models=model or [], spacings=spacings, samplers=listed(sampler), starts=starts,
        guidance_scales=guidance_scales, prior_guidance_scales=prior_guidance_scales, n=number, seed=seed,
        repeats=repeats, ref=ref, features=features, weights=weights,
        metrics=[*listed(metrics), *(name for name, is_set in flags.items() if is_set)], text=text, cache=cache,
        out=out, report=report,
    ))  # fmt: skip
