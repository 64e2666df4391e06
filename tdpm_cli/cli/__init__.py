"""The command line: parses, calls a command, prints errors, sets the exit status. Imports nothing heavy.

Each verb's words and options stand in a file of their own, which imports its command only when it is called.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from tdpm_cli.cli import autoencoder, data
from tdpm_cli.cli.evaluate import evaluate
from tdpm_cli.cli.export import export
from tdpm_cli.cli.presets import presets
from tdpm_cli.cli.sample import sample
from tdpm_cli.cli.sweep import sweep
from tdpm_cli.cli.train import train

app = typer.Typer(
    name="tdpm",
    help="Train, sample, evaluate and export truncated diffusion probabilistic models.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


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


VERBS: dict[str, Callable[..., None]] = {  # in the order of --help
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "sweep": sweep,
    "encode": autoencoder.encode,
    "decode": autoencoder.decode,
    "reconstruct": autoencoder.reconstruct,
    "interpolate": autoencoder.interpolate,
    "edit": autoencoder.edit,
    "export": export,
    "presets": presets,
}
for name, verb in VERBS.items():
    app.command(name)(verb)
app.add_typer(data.app, name="data")


def main() -> NoReturn:
    """Run the command line and exit: 0 done, 1 our defect, 2 the user's input, 130/143 interrupted."""
    try:
        _run()
    except SystemExit as end:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            # One of several ends without taking Python apart: a thread of Gloo's that lets go of the last tensor only
            # then finds no interpreter, and aborts the process after its work is done (PyTorch 2.14).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


def _run() -> NoReturn:
    debug = "--debug" in sys.argv  # accepted anywhere on the line
    sys.argv = [word for word in sys.argv if word != "--debug"]
    from tdpm_cli.runtime.errors import InputError
    from tdpm_cli.runtime.signals import Interrupted, raise_interrupted

    raise_interrupted()
    try:
        app()
    except InputError as error:
        if debug:
            raise
        _tell(f"error: {error}")
        sys.exit(error.status)
    except Interrupted as stop:
        _tell(str(stop))
        sys.exit(stop.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        _tell(f"defect: {type(error).__name__}: {error}\nPlease report it; --debug shows the traceback.")
        sys.exit(1)
    sys.exit(0)


def _tell(text: str) -> None:
    """Print the last words; or, of one of several processes, leave them to the launcher, which prints each once."""
    place, rank = os.environ.get("TDPM_MESSAGES"), os.environ.get("RANK", "0")
    if place:
        Path(place, rank).write_text(text)
    else:
        typer.echo(f"process {rank}: {text}" if os.environ.get("WORLD_SIZE", "1") != "1" else text, err=True)
