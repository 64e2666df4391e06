"""Words and options of `tdpm data`."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import among, count, existing
from tdpm_cli.config.constants import COLOURS, CROPS, IMAGES

app = typer.Typer(
    help="Look at data, verify them, prepare a zip of one resolution, train helpers on them.", no_args_is_help=True
)
Source = Annotated[
    Path,
    typer.Argument(
        help="A folder, a zip, an LMDB, .tar shards, idx files, an .npz, …",
        callback=existing("", f"accepted: {IMAGES}"),
    ),
]
Data = Annotated[
    Optional[Path],
    typer.Option(help="The images and captions, as for `tdpm train`.", callback=existing("--data")),
]
Set = Annotated[Optional[list[str]], typer.Option("--set", metavar="SECTION.KEY=VALUE", help="As for `tdpm train`.")]
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
    from tdpm_cli.data.inspect import inspect as run

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
    from tdpm_cli.data.verify import verify as run

    run(path, out, workers)


@app.command()
def prepare(
    source: Source,
    dest: Annotated[Path, typer.Argument(help="The zip to write.")],
    resolution: Annotated[str, typer.Option(help="A side, or WIDTHxHEIGHT, in pixels.")],
    crop: Annotated[str, typer.Option(help="centre, wide or dhariwal.", callback=among("--crop", CROPS))] = "centre",
    upscale: Annotated[bool, typer.Option("--upscale", help="Enlarge smaller images.")] = False,
    mode: Annotated[
        Optional[str],
        typer.Option(help="grey or rgb.", show_default="grey where all images are", callback=among("--mode", COLOURS)),
    ] = None,
    workers: Workers = None,
) -> None:
    """Bring images to one size, in one zip. The same command again continues."""
    from tdpm_cli.config.constants import parse_size

    parse_size(resolution)

    from tdpm_cli.data.prepare import prepare as run

    run(source, dest, resolution, crop, upscale, mode, workers)


@app.command()
def matcher(
    file: Annotated[Path, typer.Argument(help="The .safetensors to write.")],
    preset: Annotated[str, typer.Option(help="A preset with captions, or a YAML file.")],
    data: Data = None,
    images: Annotated[str, typer.Option(help="How long, in images, such as 200k.")] = "200k",
    set_: Set = None,
) -> None:
    """Train a small network that matches images and captions, for `tdpm eval --text`. The same command continues."""
    from tdpm_cli.config import presets, schema

    number, assignments = count("--images", images), set_ or []
    plain = presets.merge(preset, assignments)
    schema.validate_sections(plain, {"data"} if data else ())

    from tdpm_cli.evaluation.image_text_training import matcher as run

    run(schema.load_config(presets.with_data(plain, data, False, assignments)), file, number)


@app.command()
def autoencoder(
    out: Annotated[Path, typer.Argument(help="The folder to save it to.")],
    data: Annotated[Path, typer.Option(help="The images, as for `tdpm train`.", callback=existing("--data"))],
    resolution: Annotated[int, typer.Option(min=8, max=1024, help="A side, in pixels.")],
    channels: Annotated[int, typer.Option(min=1, max=64, help="Of the latents.")] = 4,
    factor: Annotated[int, typer.Option(help="By which latents are smaller than images: 2, 4 or 8.")] = 4,
    width: Annotated[int, typer.Option(min=8, help="Channels at the first level.")] = 32,
    images: Annotated[str, typer.Option(help="How long, in images, such as 200k.")] = "200k",
) -> None:
    """Train a small autoencoder, for models of latents. The same command continues."""
    number = count("--images", images)

    from tdpm_cli.training.autoencoder import autoencoder as run

    run(out, data, resolution, channels, factor, width, number)


@app.command()
def encode(
    source: Source,
    dest: Annotated[Path, typer.Argument(help="The zip to write.")],
    autoencoder: Annotated[str, typer.Option(help="A folder that diffusers saved, or OWNER/NAME of the hub.")],
    resolution: Annotated[int, typer.Option(min=8, max=1024, help="A side, in pixels.")],
) -> None:
    """Encode images once, so that training on latents is faster. The same command continues."""
    from tdpm_cli.training.autoencoder import encode as run

    run(source, dest, autoencoder, resolution)
