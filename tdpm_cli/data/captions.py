"""What becomes of images without a caption, where others of the same data have one."""

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from tdpm_cli.runtime.errors import InputError

Uncaptioned = Literal["fail", "drop", "empty"]  # and "empty" gives them "" as their only caption


def keep(
    path: Path, names: Sequence[str], without: Collection[str], uncaptioned: Uncaptioned, option: str = "--data"
) -> list[int]:
    """The positions of the images that stay, `without` being those that lack a caption.

    Raises InputError, naming one, where there are such and the policy is "fail".
    """
    if without and uncaptioned == "fail":
        raise InputError(
            f"{option} {path}: {len(without):,} of {len(names):,} images have no caption, such as "
            f"{next(iter(without))!r}; add theirs, or take all captions out, or set data.uncaptioned to drop or empty"
        )
    left_out = frozenset(without) if uncaptioned == "drop" else frozenset()
    return [k for k, name in enumerate(names) if name not in left_out]


def lines_of(text: str) -> tuple[str, ...]:
    """The captions in a text, one a line, without empty lines."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())
