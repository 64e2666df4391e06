"""Write files completely or not at all, with clear errors."""

import errno
import hashlib
import json
import os
import re
import secrets
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tdpm_cli.runtime.errors import InputError

ENTRY_TIME = (1980, 1, 1, 0, 0, 0)  # of every entry of a zip, so that equal content makes equal files
HASHED_BYTES = 1 << 20  # that `sha256` reads at a time
MAX_NAME_BYTES = 255  # of a name in a folder
MAX_FILE_BYTES = 1 << 29  # of a file that is read at once; a larger one is a mistake, or a decompression bomb

Json = dict[str, Any]  # of values that json reads and writes


class WriteError(InputError):
    """A full disk, an exhausted quota, or a path without write permission."""


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn an OSError into a WriteError that names `path`."""
    try:
        yield
    except OSError as error:
        raise WriteError(f"{path}: could not be written ({error}); free disk space, or use a writable path") from None


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a new, empty file beside `path`; rename it to `path` at the end, or remove it after any error.

    A link at `path` is replaced; the file that it names stays as it was.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        part = _new_file_beside(path)
        try:
            yield part
            os.replace(part, path)
        except BaseException:
            with suppress(OSError):
                part.unlink()
            raise


@contextmanager
def staging(path: Path) -> Iterator[Path]:
    """Yield the name of `path` in a new folder beside it, and move what is written there to `path` at the end.

    For writers that need the suffix, or that write a folder. The new folder is removed in any case.
    """
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = Path(tempfile.mkdtemp(f".{secrets.token_hex(4)}.part", _shortened(path.name), path.parent))
        try:
            yield folder / path.name
            os.replace(folder / path.name, path)
        finally:
            shutil.rmtree(folder, ignore_errors=True)


def name_of_partial(name: str) -> str | None:
    """Return the name of the file that a temporary file would have become; None for any other file.

    Only a killed process leaves a temporary file.
    """
    partial = re.fullmatch(r"(.+)\.([0-9a-f]{8}|\d+)\.part", name, re.DOTALL)  # digits alone: of tdpm 0.2.0
    return partial and partial[1]


def open_owned(path: Path, flags: int) -> int:
    """Open a file that tdpm keeps for itself, or create it; return its handle.

    Raises WriteError for a link and for anything but a regular file, because tdpm writes neither.
    """
    flags |= os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with writing(path):
        if path.is_symlink():
            raise WriteError(f"{path}: found a link, which tdpm did not create; move it away")
        handle = os.open(path, flags, 0o666)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise WriteError(f"{path}: found a file that is not regular, which tdpm did not write; move it away")
    return handle


def write_text(path: Path, text: str) -> None:
    """Write a small text file, completely or not at all, and wait until it is on the disk."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8")
        sync(part)


def open_regular(path: str | Path) -> BinaryIO:
    """Open a user's file for reading.

    Raises OSError for a file that cannot be opened, and for anything but a regular file: a FIFO would make the reader
    wait, and a device may have no end.
    """
    handle = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    try:
        _reject_special(os.fstat(handle), path)
    except OSError:
        os.close(handle)
        raise
    return open(handle, "rb")


def require_regular(path: str | Path) -> None:
    """Raise OSError unless `path` is a regular file, or a link to one: for libraries that open files themselves."""
    _reject_special(os.stat(path), path)


def _reject_special(status: os.stat_result, path: str | Path) -> None:
    if not stat.S_ISREG(status.st_mode):
        kind = "a folder" if stat.S_ISDIR(status.st_mode) else "a FIFO, socket or device"
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))


def read_regular(path: str | Path, limit: int = MAX_FILE_BYTES) -> bytes:
    """Return the content of a user's file.

    Raises OSError as `open_regular` does, and for a file of more than `limit` bytes.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = b"" if size > limit else file.read()
        if (size := max(size, len(content))) > limit:
            raise OSError(errno.EFBIG, f"{size:,} bytes; at most {limit:,} are accepted", str(path))
        return content


def name_bytes(name: str) -> bytes:
    """Return the bytes of a file's name or path. Bytes that are not UTF-8 survive: they are surrogates in the text."""
    return name.encode("utf-8", "surrogateescape")


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, read in pieces: it may be larger than memory."""
    digest = hashlib.sha256()
    with open_regular(path) as file:
        while block := file.read(HASHED_BYTES):
            digest.update(block)
    return digest.hexdigest()


def json_sha256(value: object) -> str:
    """Return the SHA-256 of a value as JSON with sorted keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def read_json(path: Path, advice: str) -> Json:
    """Read a JSON object. Raises InputError, ending in `advice`, for a file that is missing or damaged."""
    try:
        content = json.loads(read_regular(path))
    except OSError as error:
        reason = "no such file" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise InputError(f"{path}: {reason}; {advice}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged, not JSON ({error}); {advice}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: damaged, not a JSON object; {advice}")
    return content


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _new_file_beside(path: Path) -> Path:
    """Create an empty file beside `path` under a name that is not in use."""
    while True:
        part = path.with_name(f"{_shortened(path.name)}.{secrets.token_hex(4)}.part")
        with suppress(FileExistsError):
            os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666))
            return part


def _shortened(name: str) -> str:
    """Return the beginning of a name, so that a temporary name has at most MAX_NAME_BYTES."""
    return os.fsencode(name)[: MAX_NAME_BYTES - len(".xxxxxxxxxxxxxxxx.part")].decode(errors="ignore")
