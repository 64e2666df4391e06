"""`tdpm data prepare`: resize images once, before training."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.data.options import Source, Workers
from tdpm_cli.cli.options import DATA, OverwriteFile, one_of
from tdpm_cli.config.constants import COLOURS, CROPS


def prepare(
    source: Source,
    dest: Annotated[Path, typer.Argument(help="Zip to write.")],
    resolution: Annotated[str, typer.Option(help="Side, or WIDTHxHEIGHT, in pixels.", rich_help_panel=DATA)],
    crop: Annotated[
        str, typer.Option(help="centre, wide or dhariwal.", callback=one_of("--crop", CROPS), rich_help_panel=DATA)
    ] = "centre",
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge smaller images.", rich_help_panel=DATA)] = False,
    skip_small: Annotated[
        bool, typer.Option("--skip-small", help="Leave out smaller images.", rich_help_panel=DATA)
    ] = False,
    mode: Annotated[
        Optional[str],
        typer.Option(
            help="grey or rgb.",
            show_default="grey if all images are",
            callback=one_of("--mode", COLOURS),
            rich_help_panel=DATA,
        ),
    ] = None,
    workers: Workers = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Resize images into one zip; run again to continue."""
    from tdpm_cli.config.constants import parse_size

    parse_size(resolution)

    from tdpm_cli.data.prepare import PrepareOptions
    from tdpm_cli.data.prepare import prepare as run

    run(source, dest, resolution, PrepareOptions(crop, upscale, mode, workers, skip_small, overwrite))
