"""`tdpm data matcher`: train a network that matches images with captions."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.data.options import TrainingImages
from tdpm_cli.cli.options import DATA, TRAINING, Assignments, OverwriteFile, count, existing


def matcher(
    file: Annotated[Path, typer.Argument(help="The .safetensors file to write.")],
    preset: Annotated[str, typer.Option(help="Preset with captions, or a YAML file.", rich_help_panel=TRAINING)],
    data: Annotated[
        Optional[Path],
        typer.Option(help="Images with captions.", callback=existing("--data"), rich_help_panel=DATA),
    ] = None,
    images: TrainingImages = "200k",
    set_: Assignments = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Train a network that scores captions for `tdpm eval --text`."""
    from tdpm_cli.training.config import Sources, training_config

    number = count("--images", images)
    config = training_config(preset, set_ or [], Sources(data))

    from tdpm_cli.evaluation.image_text_training import matcher as run

    run(config, file, number, overwrite)
