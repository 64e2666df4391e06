"""Words and options of `tdpm presets`."""

from typing import Annotated, Optional

import typer


def presets(name: Annotated[Optional[str], typer.Argument(help="Print this preset.")] = None) -> None:
    """List the presets, or print one."""
    from tdpm_cli.cli.show_presets import presets as run

    run(name)
