"""Options that several commands of `tdpm data` share."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import MACHINE, TRAINING, existing
from tdpm_cli.config.constants import IMAGES

Source = Annotated[
    Path,
    typer.Argument(
        help="Folder, zip, LMDB, .tar shards, idx files or .npz.", callback=existing("", f"accepted: {IMAGES}")
    ),
]
Workers = Annotated[
    Optional[int],
    typer.Option(min=1, help="Processes.", show_default="one per core, at most 16", rich_help_panel=MACHINE),
]
TrainingImages = Annotated[
    str, typer.Option("--images", help="Length in images, such as 200k.", rich_help_panel=TRAINING)
]
