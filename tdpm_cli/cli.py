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
    preset: Annotated[str, typer.Option(help="A preset's name (see `tdpm presets`), or a YAML file.")],
    data: Annotated[Optional[Path], typer.Option(help="The training images: a folder or a zip.")] = None,
    outdir: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    name: Annotated[Optional[str], typer.Option(help="The run's name.", show_default="the preset's")] = None,
    duration: Annotated[Optional[str], typer.Option(help="Length in training images, such as 200k or 2M.")] = None,
    batch: Annotated[Optional[int], typer.Option(help="Images a step.")] = None,
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
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Check everything, show the plan, stop.")] = False,
) -> None:
    """Train a model. The same command again continues an interrupted run."""
    from tdpm_cli import config as configuration
    from tdpm_cli.commands.train import train as run

    plain = configuration.override(configuration.read_preset(preset), set_ or [])
    flags = {"duration": duration, "batch": batch, "seed": seed, "precision": precision, "compile": compile}
    given = {key: value for key, value in flags.items() if value is not None}
    plain = configuration.overlay(plain, "train", given)
    if data is not None:
        plain = configuration.overlay(plain, "data", {"path": str(data.resolve())})
    run(configuration.from_dict(plain), outdir, name, resume, dry_run)


@app.command()
def sample(
    out: Annotated[Path, typer.Argument(help="The folder to write to.")],
    n: Annotated[str, typer.Option(help="How many, such as 64 or 50k.")] = "64",
    model: Model = None,
    steps: Annotated[Optional[int], Shown(help="Reverse steps from the truncation point.")] = None,
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
        out, _count("--n", n), model, steps=steps, seed=seed, sampler=sampler, eta=eta, batch=batch,
        labels=labels and [word.strip() for word in labels.split(",")], scale=scale, format=format, overwrite=overwrite,
    )  # fmt: skip


@app.command("eval")
def evaluate(
    images: Annotated[Path, typer.Argument(help="What `tdpm sample` wrote, or a folder or zip of images.")],
    fid: Annotated[bool, typer.Option("--fid", help="Fréchet distance of features (the default).")] = False,
    kid: Annotated[bool, typer.Option("--kid", help="Kernel distance too: unbiased, with its standard error.")] = False,
    prdc: Annotated[bool, typer.Option("--prdc", help="Precision, recall, density and coverage, too.")] = False,
    memorised: Annotated[
        bool, typer.Option("--memorised", help="The share of samples too close to a training image, too.")
    ] = False,
    features: Annotated[Optional[str], Shown(help="Such as inception (FID proper) or efficientnet-lite0.")] = None,
    weights: Annotated[Optional[Path], typer.Option(help="A local file of the features' weights.")] = None,
    ref: Annotated[
        Optional[Path],
        typer.Option(help="Images to compare with.", show_default="the training data named in samples.json"),
    ] = None,
    n: Annotated[Optional[str], Shown(help="Score the first N samples.")] = None,
    json: Annotated[Optional[Path], typer.Option(help="Write the scores there, too.")] = None,
) -> None:
    """Score samples against the data."""
    from tdpm_cli.commands.evaluate import evaluate as run

    count = _count("--n", n) if n else None
    asked = {"kid": kid, "prdc": prdc, "memorised": memorised}
    extras = [name for name, wanted in asked.items() if wanted]
    run(images, fid=fid, extras=extras, features=features, weights=weights, ref=ref, n=count, json_file=json)


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
