"""Caches never end work: tdpm recomputes what is damaged, and goes on without what cannot be written."""

from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from platformdirs import user_cache_path

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted

Value = TypeVar("Value")


def cache_folder(kind: str) -> Path:
    """Return the folder of one kind of cached files."""
    return user_cache_path("tdpm") / kind


def look_up(path: Path, read: Callable[[Path], Value]) -> Value | None:
    """Return what `read` reads from a cached file; None if the file is missing or damaged."""
    try:
        return read(path) if path.is_file() else None
    except Interrupted:
        raise
    except Exception:  # readers of damaged files raise errors of many classes
        return None


def keep(path: Path, write: Callable[[Path], object]) -> None:
    """Write a cached file with `write`, if the disk permits."""
    with suppress(OSError, InputError):
        write(path)


def cached(
    path: Path, read: Callable[[Path], Value], compute: Callable[[], Value], write: Callable[[Path, Value], object]
) -> Value:
    """Return what a cached file contains; if it is missing or damaged, compute it and write the file."""
    if (known := look_up(path, read)) is not None:
        return known
    value = compute()
    keep(path, lambda path: write(path, value))
    return value
