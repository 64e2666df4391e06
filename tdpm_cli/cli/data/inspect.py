"""`tdpm data inspect`: look at a dataset."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.data.options import Source, Workers
from tdpm_cli.cli.options import OUTPUT, OverwriteFile


def inspect(
    path: Source,
    sheet: Annotated[
        Optional[Path],
        typer.Option(help="Contact sheet to write.", rich_help_panel=OUTPUT),
    ] = None,
    json: Annotated[Optional[Path], typer.Option(help="JSON file to write.", rich_help_panel=OUTPUT)] = None,
    workers: Workers = None,
    overwrite: OverwriteFile = False,
) -> None:
    """Count images, sizes, modes and classes."""
    from tdpm_cli.data.inspect import inspect as run
    from tdpm_cli.sampling.information import describe_truncation

    run(path, sheet, json, workers, describe_truncation, overwrite)
