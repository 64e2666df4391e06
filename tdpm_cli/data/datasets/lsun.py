"""LSUN (Yu et al. 2015): one LMDB for each category and split, of WebP images with hashes as keys."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal, NamedTuple, overload

import numpy as np

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalPath, PlainName, RawCondition
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.quarantine import read_quarantine, require_few_quarantined
from tdpm_cli.runtime.caches import cache_folder, cached
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import name_bytes, replacing

if TYPE_CHECKING:
    import lmdb

__all__ = ["lsun"]

URL = "http://dl.yf.io/lsun/scenes/{name}_lmdb.zip"
DATA = "data.mdb"  # the file of an LMDB


def lsun(
    path: Path | None, raw_shape: Sequence[int] | None, *, category: PlainName = "bedroom",
    split: Literal["train", "val"] = "train", crop: Crop = "centre", upscale: bool = False,
    quarantine: ExternalPath | None = None,
) -> ImageDataset:  # fmt: skip
    """Images of an LMDB: `path` is its folder, or the folder that contains `<category>_<split>_lmdb`.

    Raises InputError, with the steps to get the data, if they are missing, and for an LMDB that is truncated.
    """
    name = f"{category}_{split}"
    steps = f"download it: curl -LO {URL.format(name=name)} && unzip {name}_lmdb.zip, then use --data {name}_lmdb"
    if path is None:
        raise InputError(
            f"LSUN not found; name the folder {name}_lmdb, or the one that contains it, with --data; {steps}"
        )
    folders = [path, path / f"{name}_lmdb", path / name]
    folder = next((folder for folder in folders if (folder / DATA).is_file()), None)
    if folder is None:
        hint = f"unzip {path} first" if path.suffix == ".zip" else steps
        raise InputError(f"--data {path}: {DATA} not found there or in {name}_lmdb; {hint}")
    return ImageDataset(Lmdb(folder, Path(quarantine) if quarantine else None), raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Return whether `path` is the folder of an LMDB, or contains such folders."""
    return (path / DATA).is_file() or (path.is_dir() and any(path.glob(f"*/{DATA}")))


class Lmdb:
    """The images of an LMDB, in the order of their keys.

    Each process that reads opens the database itself. The list of keys is kept in the user's cache.
    """

    class_names: Sequence[str] = ()
    other_files: Sequence[str] = ()
    without_caption: Sequence[str] = ()

    def __init__(self, path: Path, quarantine: Path | None = None) -> None:
        self.path, self._resolved = path, path.resolve()
        keys = self._read_keys()
        excluded = read_quarantine(path, quarantine)
        kept = np.array([_name(key) not in excluded for key in keys.tolist()]) if excluded else None
        self._keys = keys if kept is None else keys[kept]
        self.quarantined = len(keys) - len(self._keys)
        require_few_quarantined(path, self.quarantined, len(keys))
        if not len(self._keys):
            raise InputError(f"--data {path}: the LMDB has no images")

    @property
    def names(self) -> Sequence[str]:
        """The keys."""
        return _KeyNames(self._keys)

    def content(self, k: int) -> bytes:
        """Return the bytes of image k. Raises InputError if the database is damaged there."""
        key = self._keys[k]
        opened = _databases.get(self._resolved)
        environment = opened.environment if opened and opened.process == os.getpid() else open_lmdb(self._resolved)
        with reporting_errors(self.path), environment.begin() as transaction:
            content = transaction.get(key)
        if content is None:
            raise InputError(f"{self.path}: the key {_name(key)} is missing: the LMDB has changed; start again")
        return bytes(content)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return {}: LSUN has one LMDB for each category, and no captions."""
        return {}

    def fingerprint(self) -> str:
        """Return a hash of all keys and of the size of the database."""
        size = (self.path / DATA).stat().st_size
        return hashlib.sha256(self._read_keys().tobytes() + str(size).encode()).hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of the keys and contents of all images."""
        digest = hashlib.sha256()
        for k, name in enumerate(self._keys.tolist()):
            digest.update(name + hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()

    def _read_keys(self) -> np.ndarray:
        """Return all keys, sorted: bytes of one length."""
        stat = (self.path / DATA).stat()
        stamp = f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        path = cache_folder("lmdb") / f"{hashlib.sha256(name_bytes(stamp)).hexdigest()}.npy"
        environment = open_lmdb(self._resolved)
        count = environment.stat()["entries"]

        def read(path: Path) -> np.ndarray:
            keys: np.ndarray = np.load(path, allow_pickle=False)
            if keys.shape != (count,) or keys.dtype.kind != "S":
                raise ValueError(f"keys {keys.shape} of {keys.dtype}; expected {count}")
            return keys

        def scan() -> np.ndarray:
            with reporting_errors(self.path), environment.begin() as transaction:
                return np.array(list(transaction.cursor().iternext(values=False)), dtype=np.bytes_)

        def write(path: Path, keys: np.ndarray) -> None:
            with replacing(path) as part, part.open("wb") as file:
                np.save(file, keys, allow_pickle=False)

        return cached(path, read, scan, write)


class _Database(NamedTuple):
    """An open LMDB, the process that opened it, and the file that it was (inode, size, time of change)."""

    process: int
    file: tuple[int, int, int]
    environment: "lmdb.Environment"


_databases: dict[Path, _Database] = {}  # those open in this process: LMDB allows a process to open each once


def open_lmdb(path: Path) -> "lmdb.Environment":
    """Return the environment of the LMDB at a resolved path, open in this process.

    Raises InputError for an LMDB that is missing, damaged or truncated.
    """
    try:
        import lmdb
    except ImportError:
        raise InputError("LSUN needs the package lmdb; install it with: pip install 'tdpm-cli[lmdb]'") from None
    stat = (path / DATA).stat()
    file = (stat.st_ino, stat.st_size, stat.st_mtime_ns)
    before = _databases.get(path)
    if before is not None:
        if (before.process, before.file) == (os.getpid(), file):
            return before.environment
        before.environment.close()  # of another file, or of the parent process: a fork must not use its handle
        del _databases[path]
    with reporting_errors(path):
        # Read-only and without a lock file: the data may be on a file system that cannot be written.
        environment = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
    if stat.st_size < needed:  # reading beyond the end of the file would kill the process
        environment.close()
        raise InputError(f"{path / DATA}: truncated: {stat.st_size:,} of {needed:,} bytes; download it again")
    _databases[path] = _Database(os.getpid(), file, environment)
    return environment


@contextmanager
def reporting_errors(path: Path) -> Iterator[None]:
    """Turn an error of LMDB into an InputError that names the database."""
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise InputError(f"{path}: the LMDB cannot be read ({error}); download it again") from None


def _name(key: bytes) -> str:
    """Return a key as text, of which `name_bytes` returns the key."""
    return key.decode("utf-8", "surrogateescape")


class _KeyNames(Sequence[str]):
    """Keys as text, without a list of millions of them."""

    def __init__(self, keys: np.ndarray) -> None:
        self._keys = keys

    def __len__(self) -> int:
        return len(self._keys)

    @overload
    def __getitem__(self, k: int) -> str: ...

    @overload
    def __getitem__(self, k: slice) -> list[str]: ...

    def __getitem__(self, k: int | slice) -> str | list[str]:
        if isinstance(k, slice):
            return [_name(key) for key in self._keys[k].tolist()]
        return _name(self._keys[k])
