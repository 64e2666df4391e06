"""`tdpm decode`: turn noise that `tdpm encode` wrote into images."""

from pathlib import Path
from typing import Annotated

import typer

from tdpm_cli.cli.options import Model, OutFolder, Overwrite, Seed, Settings, confirms, existing, sampling_options
from tdpm_cli.config.external import Confirmation


@confirms
@sampling_options("steps", "spacing", "sampler", "guidance_scale")
def decode(
    *,
    encoded: Annotated[
        Path,
        typer.Argument(help="Folder that `tdpm encode` wrote.", callback=existing("", "create it with `tdpm encode`")),
    ],
    out: OutFolder,
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    seed: Seed = 0,
    overwrite: Overwrite = False,
) -> None:
    """Decode noise x_T to images."""
    from tdpm_cli.sampling.decode import decode as run
    from tdpm_cli.sampling.options import DecodeOptions

    run(encoded, out, DecodeOptions(model=model, external=external, seed=seed, sampling=sampling, overwrite=overwrite))
