"""Words and options of `tdpm data`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

app = typer.Typer(help="Look at data, verify them, or prepare a zip of one resolution.", no_args_is_help=True)
Source = Annotated[Path, typer.Argument(help="A folder, a zip, an LMDB, .tar shards, idx files, an .npz, …")]
Workers = Annotated[Optional[int], typer.Option(min=1, help="Processes.", show_default="one a core, at most 16")]


@app.command()
def inspect(
    path: Source,
    sheet: Annotated[
        Optional[Path], typer.Option(help="The contact sheet to write.", show_default="NAME-contact.png here")
    ] = None,
    json: Annotated[Optional[Path], typer.Option(help="Write what was found there, too.")] = None,
    workers: Workers = None,
) -> None:
    """Count images, sizes, modes and classes, and draw some of them."""
    from tdpm_cli.commands.data import inspect as run

    run(path, sheet, json, workers)


@app.command()
def verify(
    path: Source,
    out: Annotated[
        Optional[Path], typer.Option(help="The quarantine list to write.", show_default="beside the data")
    ] = None,
    workers: Workers = None,
) -> None:
    """Decode every image; list those that cannot be, for training to leave out."""
    from tdpm_cli.commands.data import verify as run

    run(path, out, workers)


@app.command()
def prepare(
    source: Source,
    dest: Annotated[Path, typer.Argument(help="The zip to write.")],
    resolution: Annotated[str, typer.Option(help="A side, or WIDTHxHEIGHT, in pixels.")],
    crop: Annotated[str, typer.Option(help="centre, wide or dhariwal.")] = "centre",
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge smaller images.")] = False,
    mode: Annotated[Optional[str], typer.Option(help="grey or rgb.", show_default="grey where all images are")] = None,
    workers: Workers = None,
) -> None:
    """Bring images to one size, in one zip. The same command again continues."""
    from tdpm_cli.commands.data import prepare as run

    run(source, dest, resolution, crop, upscale, mode, workers)
