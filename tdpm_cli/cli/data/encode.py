"""`tdpm data encode`: compute latents once, before training."""

from pathlib import Path
from typing import Annotated

import typer

from tdpm_cli.cli.data.options import Source
from tdpm_cli.cli.options import DATA, MODEL, OverwriteFile


def encode(
    source: Source,
    dest: Annotated[Path, typer.Argument(help="Zip to write.")],
    autoencoder: Annotated[
        str, typer.Option(help="Folder that diffusers saved, or OWNER/NAME on the hub.", rich_help_panel=MODEL)
    ],
    resolution: Annotated[int, typer.Option(min=8, max=1024, help="Side in pixels.", rich_help_panel=DATA)],
    overwrite: OverwriteFile = False,
) -> None:
    """Encode images to latents once; run again to continue."""
    from tdpm_cli.training.encode_latents import encode as run

    run(source, dest, autoencoder, resolution, overwrite)
