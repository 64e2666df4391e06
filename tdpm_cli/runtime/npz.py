"""Plain arrays from .npz files of unknown origin: nothing is executed, and no memory is taken before it is checked."""

import io
import os
import zipfile
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import IO

import numpy as np
from numpy.lib import format as npy

from tdpm_cli.runtime.errors import InputError

FEW, RATIO = 1 << 26, 200  # bytes; how often larger arrays may be smaller in the file: images are 20 times at most
SUFFIX = ".npy"


@dataclass(frozen=True)
class Told:
    """What a file says of an array in it."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes."""
        return prod(self.shape) * self.dtype.itemsize


def told(path: Path) -> dict[str, Told]:
    """The arrays of an .npz, as their headers tell, without reading one. Raises InputError for what is no .npz."""
    with _opened(path) as archive:
        return {entry.filename.removesuffix(SUFFIX): _told(archive, entry) for entry in archive.infolist()}


def read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """The arrays of these names that an .npz has.

    Raises InputError for one that is damaged, holds Python objects, is packed so tightly that it must be a trap, or
    does not fit in memory.
    """
    with _opened(path) as archive:
        found = {}
        for entry in archive.infolist():
            if (name := entry.filename.removesuffix(SUFFIX)) not in names:
                continue
            says = _told(archive, entry)
            if says.size > max(FEW, RATIO * entry.compress_size):
                raise InputError(
                    f"{path}: `{name}` says that {says.size:,} bytes are packed in {entry.compress_size:,}: not to be "
                    "trusted"
                )
            if says.size > (free := os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
                raise InputError(f"{path}: `{name}` has {says.size:,} bytes, and {free:,} are free")
            with archive.open(entry) as file:
                found[name] = np.asarray(npy.read_array(file, allow_pickle=False))
        return found


def array_of(content: bytes) -> np.ndarray:
    """The array of an .npy in memory. Raises ValueError for what is none, or not what its header says."""
    try:
        _header(io.BytesIO(content), len(content))
        return np.asarray(npy.read_array(io.BytesIO(content), allow_pickle=False))
    except (EOFError, TypeError, SyntaxError, RecursionError) as error:
        raise ValueError(error) from None


def _told(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> Told:
    try:
        with archive.open(entry) as file:
            return _header(file, entry.file_size)
    except ValueError as error:
        raise ValueError(f"{entry.filename}: {error}") from None


def _header(file: IO[bytes], size: int) -> Told:
    """What the header of an .npy of `size` bytes tells, which must be what the bytes can hold."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"the format {version}")
    header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = header(file)
    says = Told(shape, dtype)
    if dtype.hasobject:
        raise ValueError("it holds pickled objects, which are never loaded")
    if min(shape, default=0) < 0 or file.tell() + says.size != size:
        raise ValueError(f"it says that it has the shape {list(shape)}, which is not what it holds")
    return says


@contextmanager
def _opened(path: Path) -> Iterator[zipfile.ZipFile]:
    if not path.is_file():
        raise InputError(f"{path}: no such file")
    try:
        with zipfile.ZipFile(path) as archive:
            yield archive
    except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, NotImplementedError, ValueError,
            TypeError, SyntaxError, RecursionError, MemoryError) as error:  # fmt: skip
        raise InputError(f"{path}: not an .npz of plain arrays ({error})") from None
