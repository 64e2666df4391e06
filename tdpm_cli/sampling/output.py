"""Output folders that an interrupted command continues: settings that must agree, and files for each piece of work."""

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing

MAY_DIFFER = ("config", "model", "tdpm")  # keys that may differ between the commands that fill one folder


def pieces_of(n: int, batch: int) -> list[range]:
    """Split 0..n-1 into pieces, always the same ones: a network rounds differently in a batch of another size."""
    return [range(start, min(start + batch, n)) for start in range(0, n, batch)]


def read_json(path: Path) -> dict[str, Any]:
    """Return the object in a JSON file; {} if the file does not exist. Raises InputError for a damaged file."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); use --overwrite to begin again") from None
    return content if isinstance(content, dict) else {}


def reject_other_settings(out: Path, before: Mapping[str, Any], now: Mapping[str, Any], what: str = "samples") -> None:
    """Raise InputError, naming the differences, if the content of a folder has other settings than those of now."""
    differences = [
        f"{key}: {before.get(key)!r} there, {now[key]!r} here"
        for key in now
        if key not in MAY_DIFFER and before.get(key) != now[key]
    ]
    if differences:
        listed = "\n  ".join(differences)
        raise InputError(f"{out} contains {what} with other settings:\n  {listed}\n"
                         "Name another folder, or use --overwrite.")  # fmt: skip


class Pieces:
    """The rows of an array, one file for each piece, until all exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, piece: range) -> bool:
        """Return whether the file of this piece exists."""
        return self._path(piece).is_file()

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Write the rows of a piece, completely or not at all."""
        with replacing(self._path(piece)) as part, part.open("wb") as file:
            np.save(file, rows, allow_pickle=False)

    def read_all(self, pieces: Sequence[range]) -> np.ndarray:
        """Return the rows of all pieces."""
        return np.concatenate([np.load(self._path(piece), allow_pickle=False) for piece in pieces])

    def remove(self) -> None:
        """Remove the files of all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, piece: range) -> Path:
        return self.folder / f"{piece.start:09d}-{piece.stop:09d}.npy"
