"""The command line: parses, calls a command, prints errors, sets the exit status. Imports nothing heavy."""

import sys
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

Model = Annotated[
    Optional[Path],  # noqa: UP045 (older Typer reads no `X | None`)
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
    data: Annotated[
        Optional[Path], typer.Option(help="The training images: a folder or a zip.")  # noqa: UP045
    ] = None,
    outdir: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    name: Annotated[
        Optional[str], typer.Option(help="The run's name.", show_default="the preset's")  # noqa: UP045
    ] = None,
    duration: Annotated[
        Optional[str], typer.Option(help="Length in training images, such as 200k or 2M.")  # noqa: UP045
    ] = None,
    batch: Annotated[Optional[int], typer.Option(help="Images a step.")] = None,  # noqa: UP045
    seed: Annotated[Optional[int], typer.Option(help="Seed of all randomness.")] = None,  # noqa: UP045
    precision: Annotated[Optional[str], typer.Option(help="auto, fp32 or bf16.")] = None,  # noqa: UP045
    compile: Annotated[
        Optional[bool], typer.Option("--compile/--no-compile", help="torch.compile the network.")  # noqa: UP045
    ] = None,
    resume: Annotated[str, typer.Option(help="auto, never, or the path of a run or checkpoint.")] = "auto",
    set_: Annotated[
        Optional[list[str]],  # noqa: UP045
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
    plain["train"] = {**(plain.get("train") or {}), **given}
    if data is not None:
        plain["data"] = {**(plain.get("data") or {}), "path": str(data.resolve())}
    run(configuration.from_dict(plain), outdir, name, resume, dry_run)


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
        typer.echo(f"defect: {type(error).__name__}: {error}\nPlease report it; --debug shows the traceback.", err=True)
        sys.exit(1)
    sys.exit(0)
