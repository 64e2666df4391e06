"""`tdpm data verify`: find images that cannot be decoded."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.data.options import Source, Workers
from tdpm_cli.cli.options import OUTPUT


def verify(
    path: Source,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Quarantine list to write.", show_default="next to the data", rich_help_panel=OUTPUT),
    ] = None,
    workers: Workers = None,
) -> None:
    """List images that cannot be decoded; training skips them."""
    from tdpm_cli.data.verify import verify as run

    run(path, out, workers)
