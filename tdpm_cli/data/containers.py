"""Files in a folder or a zip, read by name."""

import os
import struct
import zipfile
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Protocol

from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import MAX_FILE_BYTES, read_regular, require_regular

LISTED_SUFFIXES = 8  # in a message
ENCRYPTED = 0x1  # a flag of a zip's entry
LOCAL_HEADER_BYTES = 30  # of a zip's entry, without its name and extra field (APPNOTE.TXT, 4.3.7)


class Container(Protocol):
    """Files by name."""

    @property
    def folders(self) -> Sequence[str]:
        """The names of folders."""

    @property
    def has_checksums(self) -> bool:
        """Whether stamps depend on the content."""

    @property
    def path(self) -> Path:
        """The folder or file itself."""

    def stamps(self) -> Mapping[str, str]:
        """Return, for every file, a text that is cheap to compute and changes with the file, such as its size."""

    def read(self, name: str) -> bytes:
        """Return the content of a file. Raises InputError for a file that cannot be read."""


def open_container(path: Path, option: str) -> Container:
    """Open a folder or a zip. Raises InputError, naming `option`, for anything else."""
    return Folder(path) if path.is_dir() else Zip(path, option)


class Folder:
    """All files below a folder. It follows links, and visits each folder once."""

    has_checksums = False

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders: list[str] = []

    def stamps(self) -> dict[str, str]:
        """Return the size of each file."""
        return {path.relative_to(self.path).as_posix(): _size(path) for path in self._walk()}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        try:
            return read_regular(os.path.join(self.path, name))
        except OSError as error:
            raise BadFile(self.path, name, f"cannot be read ({error.strerror})") from None

    def _walk(self) -> Iterator[Path]:
        visited: set[str] = set()
        self.folders.clear()
        for folder, subfolders, names in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(folder)) in visited:
                subfolders.clear()
                continue
            visited.add(real)
            if folder != str(self.path):
                self.folders.append(Path(folder).relative_to(self.path).as_posix())
            yield from (Path(folder, name) for name in names)


class Zip:
    """The files in a zip, which is never unpacked.

    Any process may read uncompressed files at their offset; compressed files need a handle of the process.
    """

    has_checksums = True

    def __init__(self, path: Path, option: str = "--data") -> None:
        self.path, self.option = path, option
        self._archive: tuple[int, zipfile.ZipFile] | None = None  # with the process that opened it
        entries = self._open().infolist()
        self._entries = {entry.filename: entry for entry in entries if not entry.is_dir()}
        self.folders = [entry.filename.rstrip("/") for entry in entries if entry.is_dir()]

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_archive": None}

    def stamps(self) -> dict[str, str]:
        """Return the size and checksum of each file.

        Raises InputError for names that lead out of the zip. tdpm unpacks nothing, but other programs do.
        """
        leads_out = lambda name: name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")
        if bad := list(filter(leads_out, self._entries)):
            raise InputError(f"{self.option} {self.path}: {len(bad):,} names lead out of it, such as {bad[0]!r}; "
                             "do not trust this file")  # fmt: skip
        return {name: f"{entry.file_size} {entry.CRC}" for name, entry in self._entries.items()}

    def read(self, name: str) -> bytes:
        """Return the content of a file."""
        entry = self._entries[name]
        if entry.file_size > MAX_FILE_BYTES:
            reason = f"{entry.file_size:,} bytes unpacked; at most {MAX_FILE_BYTES:,} are accepted"
            raise BadFile(self.path, name, reason)
        try:
            if entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & ENCRYPTED:
                return self._read_stored(entry)
            return self._open().read(entry)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise BadFile(self.path, name, f"cannot be read ({error})", "repair the zip, or remove the file") from None

    def _read_stored(self, entry: zipfile.ZipInfo) -> bytes:
        """Return the content of an uncompressed entry: five times as fast as zipfile, which reads streams."""
        archive = self._archive[1] if self._archive else self._open()  # a fork may use its parent's handle for pread
        assert archive.fp is not None, "the archive is open"
        handle = archive.fp.fileno()
        header = os.pread(handle, LOCAL_HEADER_BYTES, entry.header_offset)
        if len(header) < LOCAL_HEADER_BYTES or header[:4] != b"PK\3\4":
            raise zipfile.BadZipFile("no header at the offset that the directory states")
        lengths = struct.unpack("<HH", header[26:])  # of the name and the extra field
        content = os.pread(handle, entry.file_size, entry.header_offset + LOCAL_HEADER_BYTES + sum(lengths))
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
        return content

    def _open(self) -> zipfile.ZipFile:
        # A forked worker opens its own handle: a shared one has one file position for both.
        if self._archive is None or self._archive[0] != os.getpid():
            try:
                require_regular(self.path)
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:  # ValueError: of a name
                raise InputError(f"{self.option} {self.path}: neither a folder nor a readable zip ({error})") from None
        return self._archive[1]


def count_by_suffix(names: Sequence[str]) -> str:
    """Return the number of files of each suffix as text, the most frequent first."""
    counts = Counter(PurePosixPath(name).suffix.lower() or "no suffix" for name in names).most_common()
    listed = ", ".join(f"{suffix} {count:,}" for suffix, count in counts[:LISTED_SUFFIXES])
    return listed + (" …" if len(counts) > LISTED_SUFFIXES else "")


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        return "missing"
