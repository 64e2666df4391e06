"""`tdpm edit`: add noise to images and denoise them."""

from typing import Annotated

import typer

from tdpm_cli.cli.options import (
    DATA,
    SAMPLING,
    Images,
    Labels,
    Model,
    OutFolder,
    Overwrite,
    Prompts,
    Seed,
    Settings,
    confirms,
    count,
    numbers,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.external import Confirmation


@confirms
@sampling_options("steps", "spacing", "sampler", "guidance_scale")
def edit(
    *,
    images: Images,
    out: OutFolder,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    strength: Annotated[
        str, typer.Option(help="Noise as fractions of T, such as 0.3,1.", rich_help_panel=SAMPLING)
    ] = "0.25,0.5,1",
    n: Annotated[str, typer.Option(help="Number of images, from the first.", rich_help_panel=DATA)] = "64",
    seed: Seed = 0,
    labels: Labels = None,
    prompt: Prompts = None,
    overwrite: Overwrite = False,
) -> None:
    """Vary images or sketches by noising and denoising."""
    strengths, number = numbers("--strength", strength), count("--n", n)
    require_model(model)

    from tdpm_cli.sampling.edit import edit as run
    from tdpm_cli.sampling.options import EditOptions

    run(images, out, EditOptions(
        model=model, external=external,
        strengths=strengths, n=number, seed=seed, labels=split_list(labels), prompts=prompt,
        sampling=sampling, overwrite=overwrite,
    ))  # fmt: skip
