"""Read plain arrays from .npz files that are not trusted: nothing is executed, and sizes are checked first."""

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

SMALL_BYTES = 1 << 26  # arrays up to this size are read however well they are compressed
MAX_COMPRESSION = 200  # of larger arrays: images are compressed 20 times at most
SUFFIX = ".npy"


@dataclass(frozen=True)
class ArrayHeader:
    """Shape and type of an array, as its file states them."""

    shape: tuple[int, ...]
    dtype: np.dtype

    @property
    def size(self) -> int:
        """Bytes of the array."""
        return prod(self.shape) * self.dtype.itemsize


def read_headers(path: Path) -> dict[str, ArrayHeader]:
    """Return the headers of the arrays in an .npz, by name. Raises InputError for any other file."""
    with _opened(path) as archive:
        return {entry.filename.removesuffix(SUFFIX): _entry_header(archive, entry) for entry in archive.infolist()}


def read(path: Path, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Return the arrays of these names that an .npz contains.

    Raises InputError for an array that is damaged, contains Python objects, is compressed so well that it must be a
    decompression bomb, or does not fit in memory.
    """
    with _opened(path) as archive:
        arrays = {}
        for entry in archive.infolist():
            if (name := entry.filename.removesuffix(SUFFIX)) not in names:
                continue
            header = _entry_header(archive, entry)
            if header.size > max(SMALL_BYTES, MAX_COMPRESSION * entry.compress_size):
                raise InputError(
                    f"{path}: `{name}` states {header.size:,} bytes, compressed to {entry.compress_size:,}; at most "
                    f"{MAX_COMPRESSION} times is accepted. Do not trust this file"
                )
            if header.size > (free := os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")):
                raise InputError(f"{path}: `{name}` has {header.size:,} bytes, but {free:,} bytes of memory are free")
            with archive.open(entry) as file:
                arrays[name] = np.asarray(npy.read_array(file, allow_pickle=False))
        return arrays


def parse_npy(content: bytes) -> np.ndarray:
    """Return the array of an .npy in memory. Raises ValueError for any other content."""
    try:
        _header(io.BytesIO(content), len(content))
        return np.asarray(npy.read_array(io.BytesIO(content), allow_pickle=False))
    except (EOFError, TypeError, SyntaxError, RecursionError) as error:
        raise ValueError(error) from None


def _entry_header(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> ArrayHeader:
    try:
        with archive.open(entry) as file:
            return _header(file, entry.file_size)
    except ValueError as error:
        raise ValueError(f"{entry.filename}: {error}") from None


def _header(file: IO[bytes], size: int) -> ArrayHeader:
    """Return the header of an .npy of `size` bytes. Raises ValueError unless it describes that many."""
    version = npy.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"format {version}")
    read_header = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
    shape, _, dtype = read_header(file)
    header = ArrayHeader(shape, dtype)
    if dtype.hasobject:
        raise ValueError("it contains pickled objects, which are never loaded")
    if min(shape, default=0) < 0 or file.tell() + header.size != size:
        raise ValueError(f"its header states the shape {list(shape)}, which does not match its {size:,} bytes")
    return header


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
