"""Words and options of `tdpm eval`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import Model, Nproc, Shown, count, in_processes, known_features, known_metrics, listed


def evaluate(
    images: Annotated[
        Optional[str],
        typer.Argument(
            help="What `tdpm sample` wrote; a folder or zip of images; an .npz of images or statistics; a preset.",
            show_default="none: --model draws them",
        ),
    ] = None,
    metrics: Annotated[
        Optional[str],
        typer.Option(
            help="Metrics beside the distance, such as fid,kid,prdc.",
            callback=known_metrics("--metrics"),
            show_default="the distance",
        ),
    ] = None,
    fid: Annotated[bool, typer.Option("--fid", help="Fréchet distance of features (the default).")] = False,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance too: unbiased, with its standard error.")] = False,
    prdc: Annotated[bool, typer.Option("--prdc", help="Precision, recall, density and coverage, too.")] = False,
    memorised: Annotated[
        bool, typer.Option("--memorised", help="The share of samples too close to a training image, too.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="The distance of each class, too.")] = False,
    text: Annotated[
        Optional[str],
        typer.Option(
            help="How well images fit their captions, too, by these features: clip or image-text:FILE.",
            callback=known_features("--text"),
        ),
    ] = None,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Which half of the model to improve: the denoiser or the prior.")
    ] = False,
    features: Annotated[
        Optional[str],
        Shown(
            help="inception (FID proper), efficientnet-lite0, dinov2, clip, or torchscript:PATH.",
            callback=known_features("--features"),
        ),
    ] = None,
    weights: Annotated[Optional[Path], typer.Option(help="A local file or folder of the features' weights.")] = None,
    ref: Annotated[
        Optional[str],
        typer.Option(help="What to compare with, as IMAGES.", show_default="the training data named in samples.json"),
    ] = None,
    n: Annotated[Optional[str], Shown(help="How many to score; of files of others, at random.")] = None,
    model: Model = None,
    steps: Annotated[Optional[int], Shown(help="With --model: reverse steps.")] = None,
    spacing: Annotated[Optional[float], Shown(help="With --model: of the steps; 1 = even.")] = None,
    sampler: Annotated[Optional[str], Shown(help="With --model: such as ddim or dpmpp_2m.")] = None,
    guidance_scale: Annotated[Optional[float], Shown(help="With --model: classifier-free guidance.")] = None,
    prior_guidance_scale: Annotated[Optional[float], Shown(help="With --model: the same of the prior.")] = None,
    seed: Annotated[
        Optional[int], typer.Option(min=0, max=2**62, help="With --model: the first seed.", show_default="0")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="With --model: so many seeds; mean ± sd.")] = 1,
    json: Annotated[Optional[Path], typer.Option(help="Write the scores and their protocol there, too.")] = None,
    report: Annotated[Optional[Path], typer.Option(help="Write a page (HTML) of all that was found there.")] = None,
    nproc: Nproc = 1,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep the features of references.")] = True,
    ref_only: Annotated[
        Optional[str], typer.Option(help="Write the statistics of these images to --out, and stop.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Of --ref-only: the .npz to write.")] = None,
) -> None:
    """Score samples against the data."""
    from tdpm_cli.checkpoints.runs import newest_run
    from tdpm_cli.config.schema import check_options
    from tdpm_cli.evaluation.options import EvaluateOptions, StatisticsOptions
    from tdpm_cli.evaluation.sources import check_source
    from tdpm_cli.runtime.errors import InputError

    sampling = {
        "steps": steps,
        "spacing": spacing,
        "sampler": sampler,
        "guidance_scale": guidance_scale,
        "prior_guidance_scale": prior_guidance_scale,
    }
    check_options(sampling)
    if (ref_only is None) != (out is None):
        raise InputError("--ref-only PATH and --out FILE.npz: give both or neither")
    if ref_only is not None and (images is not None or n is not None):
        raise InputError("--ref-only: it takes no IMAGES and no --n; the statistics are of all images of its PATH")
    number = count("--n", n) if n else None
    for option, text in (("IMAGES", images), ("--ref", ref), ("--ref-only", ref_only)):
        if text is not None:
            check_source(option, text)
    if images is None and ref_only is None and model is None:
        newest_run()  # that there is one

    from tdpm_cli.evaluation.evaluate import evaluate as run
    from tdpm_cli.evaluation.evaluate import write_statistics

    if ref_only is not None and out is not None:
        write_statistics(ref_only, StatisticsOptions(out=out, features=features, weights=weights, cache=cache))
        return
    in_processes(nproc)
    flags = {"fid": fid, "kid": kid, "prdc": prdc, "memorised": memorised, "classes": per_class}
    names = [*listed(metrics), *(name for name, is_set in flags.items() if is_set)]
    run(images, EvaluateOptions(
        model=model, seed=seed, repeats=repeats, sampling=sampling, ref=ref, n=number, features=features,
        weights=weights, metrics=names, text=text, diagnose=diagnose, cache=cache, json_file=json, report=report,
    ))  # fmt: skip
