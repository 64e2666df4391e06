"""`tdpm sample`: draw samples of a model."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    DATA,
    GUIDANCE,
    OUTPUT,
    SAMPLER_OPTIONS,
    SAMPLING,
    Labels,
    Model,
    OutFolder,
    Overwrite,
    Processes,
    Prompts,
    Settings,
    confirms,
    existing,
    in_processes,
    one_of,
    optional_count,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.constants import FORMATS
from tdpm_cli.config.external import Confirmation

SampledN = Annotated[
    Optional[str],
    typer.Option(
        "--n",
        help="Number of samples, such as 64 or 50k.",
        show_default="64, or all images of --upsample",
        rich_help_panel=SAMPLING,
    ),
]
PromptFile = Annotated[
    Optional[Path],
    typer.Option(help="Text file with one prompt per line.", callback=existing("--prompts"), rich_help_panel=SAMPLING),
]


@confirms
@sampling_options("steps", "spacing", "sampler", *SAMPLER_OPTIONS, *GUIDANCE, "precision", "batch")
def sample(
    *,
    out: OutFolder,
    n: SampledN = None,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    seed: Annotated[
        int,
        typer.Option(min=0, max=2**63 - 1, help="Sample k depends only on seed and k.", rich_help_panel=SAMPLING),
    ] = 0,
    labels: Labels = None,
    prompt: Prompts = None,
    prompts: PromptFile = None,
    upsample: Annotated[
        Optional[Path],
        typer.Option(help="Folder of small images to enlarge.", callback=existing("--upsample"), rich_help_panel=DATA),
    ] = None,
    format: Annotated[
        Optional[str],
        typer.Option(
            help="png (one file each) or npz (one array).",
            show_default="png for images",
            callback=one_of("--format", FORMATS),
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    compile: Annotated[
        bool, typer.Option("--compile", help="Compile the network with torch.compile.", rich_help_panel="Machine")
    ] = False,
    nproc: Processes = 1,
    overwrite: Overwrite = False,
) -> None:
    """Draw samples; run again to continue."""
    number = optional_count("--n", n)
    require_model(model)

    from tdpm_cli.sampling.conditions import read_prompts
    from tdpm_cli.sampling.options import SampleOptions
    from tdpm_cli.sampling.sample import sample as run

    in_processes(nproc)
    all_prompts = [*(prompt or []), *(read_prompts(prompts) if prompts else [])]
    run(out, SampleOptions(
        model=model, external=external,
        n=number, seed=seed, labels=split_list(labels), prompts=all_prompts, upsample=upsample,
        format=format, compile=compile, sampling=sampling, overwrite=overwrite,
    ))  # fmt: skip
