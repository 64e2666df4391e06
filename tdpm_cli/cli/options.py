"""Options that several verbs share, and how what was given is read."""

import sys
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Annotated, Any, Optional

import typer


def existing(option: str, advice: str = "") -> Callable[[Any], Any]:
    """A check of a path that is given to `option`: InputError, with advice, where nothing is there."""

    def check(path: Any) -> Any:
        from tdpm_cli.runtime.errors import InputError

        if path is not None and not Path(path).exists():
            raise InputError(f"{option} {path}: no such file or folder{advice and '; '}{advice}".strip())
        return path

    return check


def among(option: str, accepted: Iterable[str]) -> Callable[[Optional[str]], Optional[str]]:
    """A check of a word that is given to `option`: InputError for one that is not accepted."""

    def check(word: Optional[str]) -> Optional[str]:
        from tdpm_cli.runtime.errors import one_of

        if word is not None:
            one_of(option, word, accepted)
        return word

    return check


def known_features(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """A check of features, "name" or "name:weights", that are given to `option`: InputError for an unknown name."""

    def check(text: Optional[str]) -> Optional[str]:
        from tdpm_cli.config import registry

        if text is not None:
            registry.resolve("features", text.partition(":")[0], option)
        return text

    return check


def known_metrics(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """Check metrics between commas that are set by `option`: InputError for an unknown name."""

    def check(text: Optional[str]) -> Optional[str]:
        from tdpm_cli.config import registry

        for name in listed(text):
            registry.resolve("metric", name, option)
        return text

    return check


def pictures(option: str) -> Callable[[Optional[str]], Optional[str]]:
    """A check of what holds pictures: InputError where there is neither a file or folder nor a preset of this name."""

    def check(text: Optional[str]) -> Optional[str]:
        from tdpm_cli.config.presets import preset_names
        from tdpm_cli.runtime.errors import InputError, nearest

        if text is not None and not Path(text).exists() and text not in (known := preset_names()):
            raise InputError(f"{option} {text}: no such file or folder, nor a preset{nearest(text, known)} "
                             "Accepted: a folder, a zip or a file of pictures, or a preset's name")  # fmt: skip
        return text

    return check


def trained(init: Optional[str]) -> Optional[str]:
    """A check of --init: InputError for a path of ours, or a prefix of others', that is not there."""
    from tdpm_cli.convert.source import init_source

    if init is not None:
        init_source(init)
    return init


def ready(model: Optional[Path], **sampling: object) -> None:
    """See that there is a model, and that options of sampling are right as far as words tell. Raises InputError."""
    from tdpm_cli.checkpoints.runs import newest_run
    from tdpm_cli.config.schema import check_options

    check_options(sampling)
    if model is None:
        newest_run()


Shown = partial(typer.Option, show_default="the preset's")  # options whose default a preset sets
Model = Annotated[
    Optional[Path],
    typer.Option(
        help="A run, a checkpoint or an exported file.",
        show_default="the newest run under runs/",
        callback=existing("--model"),
    ),
]
Nproc = Annotated[int, typer.Option(min=1, help="Processes on this machine that share the work.")]


def in_processes(count: int, max_restarts: int = 0) -> None:
    """Run this very command line in `count` processes and exit as they do; unless this is one of them already."""
    if count > 1:
        from tdpm_cli.runtime.launch import is_launched, launch

        if not is_launched():
            sys.exit(launch(count, max_restarts))


def listed(text: Optional[str]) -> list[str]:
    """Words between commas."""
    return [word.strip() for word in text.split(",") if word.strip()] if text else []


def some(option: str, text: str) -> list[str]:
    """Words between commas, one at least. Raises InputError, naming the option, for none."""
    from tdpm_cli.runtime.errors import InputError

    if not (found := listed(text)):
        raise InputError(f"{option} is {text!r}: name one at least")
    return found


def numbers(option: str, text: Optional[str]) -> list[float]:
    """Numbers between commas. Raises InputError, naming the option, for other words."""
    from tdpm_cli.runtime.errors import InputError

    try:
        return [float(word) for word in listed(text)]
    except ValueError:
        raise InputError(f"{option} is {text!r}: it must be numbers, such as 1,2.5,4") from None


def count(option: str, text: str) -> int:
    """A count such as 64, 50k or 1M. Raises InputError, naming the option, for anything else."""
    from tdpm_cli.config.constants import parse_count
    from tdpm_cli.runtime.errors import InputError

    count = parse_count(text)
    if not isinstance(count, int) or count < 1:
        raise InputError(f"{option} is {text!r}: it must be a count of at least 1, such as 64, 50k or 1M")
    return count
