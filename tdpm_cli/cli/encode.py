"""`tdpm encode`: turn images into noise."""

from typing import Annotated

import typer

from tdpm_cli.cli.options import (
    OUTPUT,
    FirstN,
    Images,
    InversionSeed,
    Iterations,
    Labels,
    Model,
    OutFolder,
    Overwrite,
    Prompts,
    Settings,
    confirms,
    optional_count,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.external import Confirmation


@confirms
@sampling_options("steps", "spacing", "guidance_scale")
def encode(
    *,
    images: Images,
    out: OutFolder,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    n: FirstN = None,
    iterations: Iterations = 1,
    seed: InversionSeed = None,
    labels: Labels = None,
    prompt: Prompts = None,
    logits: Annotated[
        bool, typer.Option("--logits", help="Add the discriminator's output for each image.", rich_help_panel=OUTPUT)
    ] = False,
    overwrite: Overwrite = False,
) -> None:
    """Encode images to noise x_T."""
    number = optional_count("--n", n)
    require_model(model)

    from tdpm_cli.sampling.encode import encode as run
    from tdpm_cli.sampling.options import EncodeOptions

    run(images, out, EncodeOptions(
        model=model, external=external,
        n=number, seed=seed, iterations=iterations, logits=logits, labels=split_list(labels),
        prompts=prompt, sampling=sampling, overwrite=overwrite,
    ))  # fmt: skip
