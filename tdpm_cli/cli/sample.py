"""Words and options of `tdpm sample`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import Model, Nproc, Shown, among, count, existing, in_processes, ready
from tdpm_cli.config.constants import FORMATS


def sample(
    out: Annotated[Path, typer.Argument(help="The folder to write to.")],
    n: Annotated[
        Optional[str], typer.Option(help="How many, such as 64 or 50k.", show_default="64, or all of --upsample")
    ] = None,
    model: Model = None,
    steps: Annotated[Optional[int], Shown(help="Reverse steps from the truncation point.")] = None,
    spacing: Annotated[Optional[float], Shown(help="Of the steps: 1 even, 2 shorter near the data.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Sample k depends on seed and k alone.")] = 0,
    sampler: Annotated[Optional[str], Shown(help="Such as ddim, ddpm, ddpm_large or dpmpp_2m.")] = None,
    eta: Annotated[Optional[float], Shown(help="Noise of ddim: 0 none, 1 as much as DDPM.")] = None,
    batch: Annotated[Optional[int], Shown(help="Samples at a time.")] = None,
    precision: Annotated[Optional[str], Shown(help="Of network calls: auto, fp32 or bf16.")] = None,
    labels: Annotated[
        Optional[str], typer.Option(help="Classes by number or name, such as 3,5,cat; taken in turn.")
    ] = None,
    prompt: Annotated[
        Optional[list[str]], typer.Option(help="What is to be seen, in words; repeatable, taken in turn.")
    ] = None,
    prompts: Annotated[
        Optional[Path], typer.Option(help="A file of prompts, one a line.", callback=existing("--prompts"))
    ] = None,
    upsample: Annotated[
        Optional[Path],
        typer.Option(
            help="A folder of smaller images, for a model that enlarges them.", callback=existing("--upsample")
        ),
    ] = None,
    guidance_scale: Annotated[Optional[float], Shown(help="Classifier-free guidance: 1 = off.")] = None,
    prior_guidance_scale: Annotated[Optional[float], Shown(help="The same of the prior.")] = None,
    format: Annotated[
        Optional[str],
        typer.Option(
            help="png (a file each) or npz (arr_0).",
            show_default="png for images",
            callback=among("--format", FORMATS),
        ),
    ] = None,
    compile: Annotated[bool, typer.Option("--compile", help="torch.compile the network.")] = False,
    nproc: Nproc = 1,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the folder again.")] = False,
) -> None:
    """Write samples to a folder. The same command again continues an interrupted one."""
    number = count("--n", n) if n else None
    ready(
        model,
        steps=steps,
        spacing=spacing,
        sampler=sampler,
        eta=eta,
        batch=batch,
        precision=precision,
        guidance_scale=guidance_scale,
        prior_guidance_scale=prior_guidance_scale,
    )

    from tdpm_cli.sampling.sample import read_prompts
    from tdpm_cli.sampling.sample import sample as run

    in_processes(nproc)
    run(
        out,
        number,
        model,
        steps=steps,
        spacing=spacing,
        seed=seed,
        sampler=sampler,
        eta=eta,
        batch=batch,
        precision=precision,
        labels=labels and [word.strip() for word in labels.split(",")],
        prompts=[*(prompt or []), *(read_prompts(prompts) if prompts else [])] or None,
        upsample=upsample,
        guidance_scale=guidance_scale,
        prior_guidance_scale=prior_guidance_scale,
        format=format,
        compile=compile,
        overwrite=overwrite,
    )
