"""LSUN (Yu et al. 2015): one LMDB for each category and split, of WebP images under hashes as keys."""

import hashlib
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Literal

import numpy as np
from platformdirs import user_cache_path

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import read_quarantine, refuse_many
from tdpm_cli.runtime.errors import InputError

__all__ = ["lsun"]

URL = "http://dl.yf.io/lsun/scenes/{name}_lmdb.zip"
DATA = "data.mdb"


def lsun(
    path: Path | None, raw_shape: Sequence[int] | None, *, category: str = "bedroom",
    split: Literal["train", "val"] = "train", crop: Crop = "centre", upscale: bool = False,
    quarantine: str | None = None,
) -> ImageDataset:  # fmt: skip
    """Images of an LMDB: `path` is its folder, or the one that holds `<category>_<split>_lmdb`.

    Raises InputError, with the steps to get the data, where there is none, and for one that is cut short.
    """
    name = f"{category}_{split}"
    steps = f"get it by: curl -LO {URL.format(name=name)} && unzip {name}_lmdb.zip, then --data {name}_lmdb"
    if path is None:
        raise InputError(f"the data 'lsun' need --data PATH, the folder {name}_lmdb or the one that holds it; {steps}")
    places = [path, path / f"{name}_lmdb", path / name]
    place = next((place for place in places if (place / DATA).is_file()), None)
    if place is None:
        hint = f"it is a zip: unzip {path} first" if path.suffix == ".zip" else steps
        raise InputError(f"--data {path}: no {DATA} there, nor in {name}_lmdb below it; {hint}")
    return ImageDataset(Lmdb(place, Path(quarantine) if quarantine else None), raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Whether `path` is the folder of an LMDB, or holds such folders."""
    return (path / DATA).is_file() or (path.is_dir() and any(path.glob(f"*/{DATA}")))


class Lmdb:
    """The images of an LMDB by number, in the order of their keys.

    The database is opened in each process that reads, when it first does. Keys are listed once, and kept in the
    user's cache.
    """

    other_files: Sequence[str] = ()
    without_caption: Sequence[str] = ()

    def __init__(self, path: Path, quarantine: Path | None = None) -> None:
        self.path, self.class_names, self._place = path, list[str](), path.resolve()
        keys = self._keys()
        kept_out = read_quarantine(path, quarantine)
        kept = np.array([key.decode() not in kept_out for key in keys.tolist()]) if kept_out else None
        self._index = keys if kept is None else keys[kept]
        self.quarantined = refuse_many(path, len(keys) - len(self._index), len(keys))
        if not len(self._index):
            raise InputError(f"--data {path}: the LMDB holds no images")

    @property
    def names(self) -> Sequence[str]:
        """The keys."""
        return _Names(self._index)

    def content(self, k: int) -> bytes:
        """The bytes of image k. Raises InputError where the database is damaged there."""
        key = self._index[k]
        (pid, *_), environment = _opened.get(self._place, ((0,), None))
        if pid != os.getpid():  # the first image that this process reads
            environment = opened(self._place)
        with reading(self.path), environment.begin() as transaction:
            found = transaction.get(key)
        if found is None:
            raise InputError(f"{self.path}: the key {key.decode()} is gone: the LMDB has changed; start again")
        return bytes(found)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Nothing: LSUN has one LMDB for each category."""
        return {}

    def fingerprint(self) -> str:
        """Of all keys, and the size of the database."""
        return hashlib.sha256(self._keys().tobytes() + str((self.path / DATA).stat().st_size).encode()).hexdigest()

    def sha256(self) -> str:
        """Of the keys and contents of all images."""
        digest = hashlib.sha256()
        for k, name in enumerate(self._index.tolist()):
            digest.update(name + hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()

    def _keys(self) -> np.ndarray:
        """All keys, bytes of one length, sorted."""
        stat = (self.path / DATA).stat()
        stamp = f"{self.path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
        cached = user_cache_path("tdpm") / "lmdb" / f"{hashlib.sha256(stamp.encode()).hexdigest()}.npy"
        environment = opened(self._place)
        with suppress(OSError, ValueError):
            return np.load(cached, allow_pickle=False)
        with reading(self.path), environment.begin() as transaction:
            keys = np.array(list(transaction.cursor().iternext(values=False)), dtype=np.bytes_)
        with suppress(OSError):
            cached.parent.mkdir(parents=True, exist_ok=True)
            part = cached.with_name(f"{cached.name}.{os.getpid()}.part")
            with part.open("wb") as file:
                np.save(file, keys, allow_pickle=False)
            os.replace(part, cached)
        return keys


_opened: dict[Path, tuple[tuple[int, ...], Any]] = {}  # what each open database was when it was opened


def opened(path: Path) -> Any:
    """The environment of the LMDB at `path`, resolved, open in this process: one for all, for LMDB allows no second.

    Raises InputError for one that is missing, damaged or cut short.
    """
    try:
        import lmdb
    except ImportError:
        raise InputError("LMDBs need a package; install it with: pip install 'tdpm-cli[lmdb]'") from None
    stat = (path / DATA).stat()
    identity = (os.getpid(), stat.st_ino, stat.st_size, stat.st_mtime_ns)
    before, found = _opened.get(path, ((), None))
    if before == identity:
        return found
    if found is not None:
        found.close()  # of another file, or of the parent of this fork: a handle must not cross it
        del _opened[path]
    with reading(path):
        # Read only, without a lock file: the data may lie where nothing can be written.
        found = lmdb.open(str(path), readonly=True, lock=False, readahead=False, meminit=False)
        needed = (found.info()["last_pgno"] + 1) * found.stat()["psize"]
    if stat.st_size < needed:  # reading beyond the end would end the process
        found.close()
        raise InputError(f"{path / DATA}: cut short: {stat.st_size:,} of {needed:,} bytes; fetch it again")
    _opened[path] = (identity, found)
    return found


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn an error of LMDB into an InputError that names the database."""
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        raise InputError(f"{path}: the LMDB cannot be read ({error}); fetch it again") from None


class _Names(Sequence[str]):
    """Keys as text, without a list of millions of them."""

    def __init__(self, keys: np.ndarray) -> None:
        self.keys = keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, k: Any) -> Any:
        return [key.decode() for key in self.keys[k].tolist()] if isinstance(k, slice) else self.keys[k].decode()
