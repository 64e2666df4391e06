"""`tdpm interpolate`: move from one image or sample to another."""

from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    DATA,
    SAMPLING,
    FirstN,
    Iterations,
    Labels,
    Model,
    OutFolder,
    Overwrite,
    Prompts,
    Settings,
    confirms,
    known_images,
    optional_count,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.external import Confirmation


@confirms
@sampling_options("steps", "spacing", "sampler", "guidance_scale")
def interpolate(
    *,
    out: OutFolder,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    images: Annotated[
        Optional[str],
        typer.Option(
            help="Images to interpolate between, through x_T.",
            callback=known_images("--images"),
            rich_help_panel=DATA,
        ),
    ] = None,
    seeds: Annotated[
        Optional[str],
        typer.Option(help="Samples to interpolate between, through z: 0,1,2.", rich_help_panel=SAMPLING),
    ] = None,
    n: FirstN = None,
    frames: Annotated[int, typer.Option(min=2, help="Images from one to the next.", rich_help_panel=SAMPLING)] = 8,
    iterations: Iterations = 1,
    labels: Labels = None,
    prompt: Prompts = None,
    overwrite: Overwrite = False,
) -> None:
    """Interpolate between images or between samples."""
    number, chosen = optional_count("--n", n), [_seed(item) for item in split_list(seeds)]
    require_model(model)

    from tdpm_cli.sampling.interpolate import interpolate as run
    from tdpm_cli.sampling.options import InterpolateOptions

    run(out, InterpolateOptions(
        model=model, external=external, images=images, seeds=chosen, n=number, frames=frames, iterations=iterations,
        labels=split_list(labels), prompts=prompt, sampling=sampling, overwrite=overwrite,
    ))  # fmt: skip


def _seed(text: str) -> int:
    from tdpm_cli.runtime.errors import InputError

    if not text.isdecimal():
        raise InputError(f"--seeds contains {text!r}: seeds are integers from 0, such as 0,1,2")
    return int(text)
