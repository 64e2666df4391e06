"""`tdpm reconstruct`: measure what encoding and decoding lose."""

from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    DATA,
    SAMPLING,
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
    count,
    counts,
    nonempty_list,
    require_model,
    sampling_options,
    split_list,
)
from tdpm_cli.config.external import Confirmation


@confirms
@sampling_options("spacing")
def reconstruct(
    *,
    images: Images,
    out: OutFolder,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    steps: Annotated[
        str, typer.Option(help="Steps in each direction, such as 4,16,64.", rich_help_panel=SAMPLING)
    ] = "4,8,16,32,64",
    at: Annotated[
        Optional[str],
        typer.Option(help="Times t to encode to, such as 50,100.", show_default="T", rich_help_panel=SAMPLING),
    ] = None,
    n: Annotated[str, typer.Option(help="Number of images, from the first.", rich_help_panel=DATA)] = "64",
    iterations: Iterations = 1,
    seed: InversionSeed = None,
    labels: Labels = None,
    prompt: Prompts = None,
    overwrite: Overwrite = False,
) -> None:
    """Measure the loss of encoding and decoding images."""
    number, all_steps = count("--n", n), counts("--steps", nonempty_list("--steps", steps))
    times = counts("--at", split_list(at))
    require_model(model)

    from tdpm_cli.evaluation.options import ReconstructOptions
    from tdpm_cli.evaluation.reconstruct import reconstruct as run

    run(images, out, ReconstructOptions(
        model=model, external=external,
        n=number, steps=all_steps, at=times, iterations=iterations, seed=seed, labels=split_list(labels),
        prompts=prompt, sampling=sampling, overwrite=overwrite,
    ))  # fmt: skip
