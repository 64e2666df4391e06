"""The command line: parses, calls a feature's function, prints errors, sets the exit status. Imports nothing heavy.

Each command is one file here, which imports its feature only when the command runs.
"""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, NoReturn, TextIO, cast

import typer

from tdpm_cli.cli.data import app as data
from tdpm_cli.cli.decode import decode
from tdpm_cli.cli.edit import edit
from tdpm_cli.cli.encode import encode
from tdpm_cli.cli.evaluate import evaluate
from tdpm_cli.cli.export import export
from tdpm_cli.cli.interpolate import interpolate
from tdpm_cli.cli.presets import presets
from tdpm_cli.cli.reconstruct import reconstruct
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


COMMANDS: dict[str, Callable[..., None]] = {  # in the order of --help
    "train": train,
    "sample": sample,
    "eval": evaluate,
    "sweep": sweep,
    "encode": encode,
    "decode": decode,
    "reconstruct": reconstruct,
    "interpolate": interpolate,
    "edit": edit,
    "export": export,
    "presets": presets,
}
for name, command in COMMANDS.items():
    app.command(name)(command)
app.add_typer(data, name="data")


def main() -> NoReturn:
    """Run the command line and exit: 0 success, 1 a defect of tdpm, 2 wrong input, 130 or 143 interrupted."""
    if os.environ.get("WORLD_SIZE", "1") != "1":
        from tdpm_cli.runtime.parent import end_with_launcher

        end_with_launcher()  # first of all: this process is of no use without the one that started it
    _guard_streams()
    try:
        _run()
    except SystemExit as end:
        if os.environ.get("WORLD_SIZE", "1") != "1":
            # One of several processes exits without finalizing Python: a thread of Gloo's that releases its last
            # tensor after the interpreter is gone aborts the process (PyTorch 2.14).
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(int(end.code or 0))
        raise


def _guard_streams() -> None:
    """Let no failure to print end the command."""
    from tdpm_cli.runtime.streams import Stream, open_standard_descriptors

    open_standard_descriptors()
    out, err = sys.stdout, sys.stderr
    sys.stdout, sys.stderr = cast(TextIO, Stream(lambda: out)), cast(TextIO, Stream(lambda: err))


def _run() -> NoReturn:
    debug = "--debug" in sys.argv  # accepted anywhere on the line
    sys.argv = [argument for argument in sys.argv if argument != "--debug"]
    from tdpm_cli.runtime.errors import InputError, refusal
    from tdpm_cli.runtime.signals import Interrupted, raise_interrupted

    raise_interrupted()
    try:
        _call_app()
    except InputError as error:
        if debug:
            raise
        _print_error(f"error: {error}")
        sys.exit(error.status)
    except Interrupted as interruption:
        _print_error(str(interruption))
        sys.exit(interruption.status)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        if debug:
            raise
        if refused := refusal(error):
            _print_error(f"error: {refused}")
            sys.exit(refused.status)
        _print_error(f"defect: {type(error).__name__}: {error}\nPlease report it; --debug shows the traceback.")
        sys.exit(1)
    sys.exit(0)


def _call_app() -> None:
    """Run the command. Raises WriteError if its results could not be printed."""
    try:
        app()
    except SystemExit as end:
        if end.code:
            raise
    if "tdpm_cli.runtime.console" in sys.modules:
        from tdpm_cli.runtime.console import check_results

        check_results()


def _print_error(text: str) -> None:
    """Print an error; one of several processes leaves it to the launcher, which prints each error once."""
    from tdpm_cli.runtime.text import visible_lines

    text = visible_lines(text)
    folder, rank = os.environ.get("TDPM_MESSAGES"), os.environ.get("RANK", "0")
    if folder:
        Path(folder, rank).write_text(text, encoding="utf-8")
    else:
        typer.echo(f"process {rank}: {text}" if os.environ.get("WORLD_SIZE", "1") != "1" else text, err=True)
