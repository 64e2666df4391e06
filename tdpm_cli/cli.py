"""The command line: parses, calls a command, prints errors, sets the exit status. Imports nothing heavy."""

import sys
from functools import partial
from pathlib import Path
from typing import Annotated, NoReturn, Optional

import typer

app = typer.Typer(
    name="tdpm",
    help="Train, sample, evaluate and export truncated diffusion probabilistic models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Shown = partial(typer.Option, show_default="the preset's")  # options whose default a preset sets
Model = Annotated[
    Optional[Path],
    typer.Option(help="A run, a checkpoint or an exported file.", show_default="the newest run under runs/"),
]


def _version(value: bool) -> None:
    if value:
        from tdpm_cli import __version__

        typer.echo(f"tdpm {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    debug: Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")] = False,
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    pass


@app.command()
def train(
    preset: Annotated[
        str, typer.Option(help="A preset's name (see `tdpm presets`), a YAML file, or auto: proposed from --data.")
    ],
    data: Annotated[
        Optional[Path],
        typer.Option(help="The training images: a folder, a zip, an LMDB, .tar shards, idx files, .npz."),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the preset's data where they are missing.")
    ] = False,
    outdir: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    name: Annotated[Optional[str], typer.Option(help="The run's name.", show_default="the preset's")] = None,
    duration: Annotated[Optional[str], typer.Option(help="Length in training images, such as 200k or 2M.")] = None,
    batch: Annotated[Optional[int], typer.Option(help="Images a step.")] = None,
    batch_gpu: Annotated[
        Optional[int], typer.Option(help="Images at a time, where memory is short.", show_default="the batch")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of all randomness.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="auto, fp32 or bf16.")] = None,
    compile: Annotated[
        Optional[bool], typer.Option("--compile/--no-compile", help="torch.compile the network.")
    ] = None,
    resume: Annotated[str, typer.Option(help="auto, never, or the path of a run or checkpoint.")] = "auto",
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of the preset; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show plan, cost and speed, stop.")
    ] = False,
) -> None:
    """Train a model. The same command again continues an interrupted run."""
    from tdpm_cli import config as configuration
    from tdpm_cli.commands.train import train as run
    from tdpm_cli.proposal import propose

    plain = propose(data) if preset == "auto" else configuration.read_preset(preset)
    plain = configuration.override(plain, set_ or [])
    flags = {"duration": duration, "batch": batch, "batch_gpu": batch_gpu, "seed": seed, "precision": precision,
             "compile": compile}  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}
    plain = configuration.overlay(plain, "train", given)
    run(configuration.from_dict(configuration.with_data(plain, data, download)), outdir, name, resume, dry_run)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="The folder to write to.")],
    n: Annotated[str, typer.Option(help="How many, such as 64 or 50k.")] = "64",
    model: Model = None,
    steps: Annotated[Optional[int], Shown(help="Reverse steps from the truncation point.")] = None,
    spacing: Annotated[Optional[float], Shown(help="Of the steps: 1 even, 2 shorter near the data.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**63 - 1, help="Sample k depends on seed and k alone.")] = 0,
    sampler: Annotated[Optional[str], Shown(help="Such as ddim, ddpm, ddpm_large or dpmpp_2m.")] = None,
    eta: Annotated[Optional[float], Shown(help="Noise of ddim: 0 none, 1 as much as DDPM.")] = None,
    batch: Annotated[Optional[int], Shown(help="Samples at a time.")] = None,
    labels: Annotated[
        Optional[str], typer.Option(help="Classes by number or name, such as 3,5,cat; taken in turn.")
    ] = None,
    scale: Annotated[Optional[float], Shown(help="Classifier-free guidance: 1 = off.")] = None,
    format: Annotated[
        Optional[str], typer.Option(help="png (a file each) or npz (arr_0).", show_default="png for images")
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Begin the folder again.")] = False,
) -> None:
    """Write samples to a folder. The same command again continues an interrupted one."""
    from tdpm_cli.commands.sample import sample as run

    run(
        out, _count("--n", n), model, steps=steps, spacing=spacing, seed=seed, sampler=sampler, eta=eta, batch=batch,
        labels=labels and [word.strip() for word in labels.split(",")], scale=scale, format=format, overwrite=overwrite,
    )  # fmt: skip


@app.command("eval")
def evaluate(
    images: Annotated[
        Optional[str],
        typer.Argument(
            help="What `tdpm sample` wrote; a folder or zip of images; an .npz of images or statistics; a preset.",
            show_default="none: --model draws them",
        ),
    ] = None,
    fid: Annotated[bool, typer.Option("--fid", help="Fréchet distance of features (the default).")] = False,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance too: unbiased, with its standard error.")] = False,
    prdc: Annotated[bool, typer.Option("--prdc", help="Precision, recall, density and coverage, too.")] = False,
    memorised: Annotated[
        bool, typer.Option("--memorised", help="The share of samples too close to a training image, too.")
    ] = False,
    per_class: Annotated[bool, typer.Option("--per-class", help="The distance of each class, too.")] = False,
    text: Annotated[
        bool, typer.Option("--text", help="How well images fit their captions, too (with --features clip).")
    ] = False,
    diagnose: Annotated[
        bool, typer.Option("--diagnose", help="Which half of the model to improve: the denoiser or the prior.")
    ] = False,
    features: Annotated[
        Optional[str],
        Shown(help="inception (FID proper), efficientnet-lite0, dinov2, clip, or torchscript:PATH."),
    ] = None,
    weights: Annotated[Optional[Path], typer.Option(help="A local file or folder of the features' weights.")] = None,
    ref: Annotated[
        Optional[str],
        typer.Option(help="What to compare with, as IMAGES.", show_default="the training data named in samples.json"),
    ] = None,
    n: Annotated[Optional[str], Shown(help="How many to score; of files of others, at random.")] = None,
    model: Model = None,
    steps: Annotated[Optional[int], Shown(help="With --model: reverse steps.")] = None,
    spacing: Annotated[Optional[float], Shown(help="With --model: of the steps; 1 = even.")] = None,
    sampler: Annotated[Optional[str], Shown(help="With --model: such as ddim or dpmpp_2m.")] = None,
    scale: Annotated[Optional[float], Shown(help="With --model: classifier-free guidance.")] = None,
    seed: Annotated[
        Optional[int], typer.Option(min=0, max=2**62, help="With --model: the first seed.", show_default="0")
    ] = None,
    repeats: Annotated[int, typer.Option(min=1, help="With --model: so many seeds; mean ± sd.")] = 1,
    json: Annotated[Optional[Path], typer.Option(help="Write the scores and their protocol there, too.")] = None,
    report: Annotated[Optional[Path], typer.Option(help="Write a page (HTML) of all that was found there.")] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep the features of references.")] = True,
    ref_only: Annotated[
        Optional[str], typer.Option(help="Write the statistics of these images to --out, and stop.")
    ] = None,
    out: Annotated[Optional[Path], typer.Option(help="Of --ref-only: the .npz to write.")] = None,
) -> None:
    """Score samples against the data."""
    from tdpm_cli.commands.evaluate import evaluate as run
    from tdpm_cli.commands.evaluate import write_statistics
    from tdpm_cli.errors import InputError

    if (ref_only is None) != (out is None):
        raise InputError("--ref-only PATH and --out FILE.npz: give both or neither")
    if ref_only is not None and out is not None:
        if images is not None or n is not None:
            raise InputError("--ref-only: it takes no IMAGES and no --n; the statistics are of all images of its PATH")
        write_statistics(ref_only, out, features=features, weights=weights, cache=cache)
        return
    asked = {"kid": kid, "prdc": prdc, "memorised": memorised, "text": text, "classes": per_class}
    run(
        images, model=model, seed=seed, repeats=repeats,
        sampling={"steps": steps, "spacing": spacing, "sampler": sampler, "scale": scale},
        ref=ref, n=_count("--n", n) if n else None, features=features, weights=weights, fid=fid,
        extras=[name for name, wanted in asked.items() if wanted], diagnosis=diagnose, cache=cache,
        json_file=json, report=report,
    )  # fmt: skip


@app.command()
def sweep(
    steps: Annotated[str, typer.Option(help="Reverse steps, such as 1,2,4,8,16.")] = "1,2,4,8,16",
    model: Annotated[
        Optional[list[Path]],
        typer.Option(help="A run, a checkpoint or an exported file; may be repeated.", show_default="the newest run"),
    ] = None,
    spacing: Annotated[Optional[str], Shown(help="Of the steps, such as 1,2.")] = None,
    sampler: Annotated[Optional[str], Shown(help="Such as ddim,dpmpp_2m.")] = None,
    start: Annotated[
        str, typer.Option(help="Where the chain starts: prior, data (the ceiling), gaussian; several by commas.")
    ] = "prior",
    scale: Annotated[Optional[str], Shown(help="Classifier-free guidance, such as 1,2,4.")] = None,
    n: Annotated[Optional[str], Shown(help="Samples scored in each row.")] = None,
    seed: Annotated[int, typer.Option(min=0, max=2**62, help="The first seed.")] = 0,
    repeats: Annotated[int, typer.Option(min=1, help="Seeds in each row: mean ± sd.")] = 1,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance, too.")] = False,
    prdc: Annotated[bool, typer.Option("--prdc", help="Precision, recall, density and coverage, too.")] = False,
    features: Annotated[Optional[str], Shown(help="As for eval.")] = None,
    weights: Annotated[Optional[Path], typer.Option(help="A local file or folder of the features' weights.")] = None,
    ref: Annotated[
        Optional[str], typer.Option(help="What to compare with.", show_default="the models' training data")
    ] = None,
    cache: Annotated[bool, typer.Option("--cache/--no-cache", help="Keep the features of references.")] = True,
    out: Annotated[
        Optional[Path], typer.Option(help="The folder to write to.", show_default="sweep in the first model's run")
    ] = None,
    report: Annotated[Optional[Path], typer.Option(help="Write a page (HTML) with table and plot there.")] = None,
) -> None:
    """Quality against network calls: table, CSV, JSON and plot. The same command again continues."""
    from tdpm_cli.commands.sweep import sweep as run

    run(
        [_count("--steps", word) for word in _listed(steps)], model or [], spacings=_numbers("--spacing", spacing),
        samplers=_listed(sampler), starts=_listed(start), scales=_numbers("--scale", scale),
        n=_count("--n", n) if n else None, seed=seed, repeats=repeats, ref=ref, features=features, weights=weights,
        extras=[name for name, wanted in {"kid": kid, "prdc": prdc}.items() if wanted], cache=cache, out=out,
        report=report,
    )  # fmt: skip


@app.command()
def export(
    file: Annotated[Path, typer.Argument(help="The file to write.")],
    model: Model = None,
    format: Annotated[str, typer.Option(help="safetensors")] = "safetensors",
) -> None:
    """Write a trained model as one self-describing file."""
    from tdpm_cli.commands.export import export as run

    run(file, model, format)


@app.command()
def presets(name: Annotated[Optional[str], typer.Argument(help="Print this preset.")] = None) -> None:
    """List the presets, or print one."""
    from tdpm_cli.commands.presets import presets as run

    run(name)


data_app = typer.Typer(help="Look at data, verify them, or prepare a zip of one resolution.", no_args_is_help=True)
app.add_typer(data_app, name="data")
Source = Annotated[Path, typer.Argument(help="A folder, a zip, an LMDB, .tar shards, idx files, an .npz, …")]
Workers = Annotated[Optional[int], typer.Option(min=1, help="Processes.", show_default="one a core, at most 16")]


@data_app.command()
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


@data_app.command()
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


@data_app.command()
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


def _listed(text: Optional[str]) -> list[str]:
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def _numbers(option: str, text: Optional[str]) -> list[float]:
    from tdpm_cli.errors import InputError

    try:
        return [float(word) for word in _listed(text)]
    except ValueError:
        raise InputError(f"{option} is {text!r}: it must be numbers, such as 1,2.5,4") from None


def _count(option: str, text: str) -> int:
    from tdpm_cli.config import parse_count
    from tdpm_cli.errors import InputError

    count = parse_count(text)
    if not isinstance(count, int) or count < 1:
        raise InputError(f"{option} is {text!r}: it must be a count of at least 1, such as 64, 50k or 1M")
    return count


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 our defect, 2 the user's input, 130/143 interrupted."""
    debug = "--debug" in sys.argv  # accepted anywhere on the line
    sys.argv = [word for word in sys.argv if word != "--debug"]
    from tdpm_cli.errors import InputError
    from tdpm_cli.run.signals import Interrupted

    try:
        app()
    except InputError as error:
        if debug:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except Interrupted as stop:
        typer.echo(str(stop), err=True)
        sys.exit(stop.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        typer.echo(
            f"defect: {type(error).__name__}: {error}\nPlease report it; --debug shows the traceback.",
            err=True,
        )
        sys.exit(1)
    sys.exit(0)
