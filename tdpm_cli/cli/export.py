"""Words and options of `tdpm export`."""

from pathlib import Path
from typing import Annotated

import typer

from tdpm_cli.cli.options import Model


def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Model = None,
    format: Annotated[str, typer.Option(help="safetensors")] = "safetensors",
) -> None:
    """Write a trained model as one self-describing file."""
    from tdpm_cli.commands.export import export as run

    run(file, model, format)
