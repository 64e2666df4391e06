"""`tdpm data autoencoder`: train an autoencoder of images."""

from pathlib import Path
from typing import Annotated

import typer

from tdpm_cli.cli.data.options import TrainingImages
from tdpm_cli.cli.options import DATA, MODEL, count, existing


def autoencoder(
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    data: Annotated[Path, typer.Option(help="Training images.", callback=existing("--data"), rich_help_panel=DATA)],
    resolution: Annotated[int, typer.Option(min=8, max=1024, help="Side in pixels.", rich_help_panel=DATA)],
    channels: Annotated[int, typer.Option(min=1, max=64, help="Channels of latents.", rich_help_panel=MODEL)] = 4,
    factor: Annotated[
        int, typer.Option(help="Side of images over that of latents: 2, 4, 8.", rich_help_panel=MODEL)
    ] = 4,
    width: Annotated[int, typer.Option(min=8, help="Channels at the first level.", rich_help_panel=MODEL)] = 32,
    images: TrainingImages = "200k",
) -> None:
    """Train an autoencoder for latent models; run again to continue."""
    number = count("--images", images)

    from tdpm_cli.training.autoencoder import AutoencoderOptions
    from tdpm_cli.training.autoencoder import autoencoder as run

    run(out, data, AutoencoderOptions(resolution, channels, factor, width, number))
