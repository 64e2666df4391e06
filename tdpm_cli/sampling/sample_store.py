"""The samples in an output folder: one PNG for each image, or one array.

Images are `000000.png` and so on. An array is `samples.npz`; until it is complete, its pieces are in `.pieces`.
`samples.json` contains everything that they depend on. Several processes may fill one folder.
"""

import io
import os
import re
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.data.decode import from_array
from tdpm_cli.data.stored_images import SAMPLES_ARRAY
from tdpm_cli.runtime import npz
from tdpm_cli.runtime.console import TaskTimes
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, name_of_partial, replacing
from tdpm_cli.runtime.locks import FOLDER
from tdpm_cli.sampling.output import Layout, OutputFolder

MANIFEST = "samples.json"
_IMAGE = re.compile(r"\d{6,}\.png")
UNSTATED = 1_000_000  # images that a manifest of tdpm 0.2.0 may list, which does not state their number


@dataclass(frozen=True)
class _Names:
    """The names of the samples that a manifest describes."""

    images: int
    array: bool

    def __contains__(self, name: object) -> bool:
        if name == SAMPLES_ARRAY:
            return self.array
        return isinstance(name, str) and _IMAGE.fullmatch(name) is not None and self._is_image(int(name[:-4]), name)

    def _is_image(self, k: int, name: str) -> bool:
        return k < self.images and name == _image_name(k)


def _names(manifest: Json) -> _Names:
    return _Names(_stated(manifest), manifest.get("format") != "png")


def _stated(manifest: Json) -> int:
    """Return the number of images that a manifest states."""
    if manifest.get("format") == "npz":
        return 0
    n = manifest.get("n", UNSTATED)
    return n if isinstance(n, int) else UNSTATED


def _image_name(k: int) -> str:
    return f"{k:06d}.png"


SAMPLES = Layout(
    MANIFEST, settings=MANIFEST, pieces=".pieces", content=re.compile(r"samples\.npz|\d{6,}\.png"), names=_names
)  # fmt: skip


class SampleStore(Protocol):
    """Writes samples to a folder, in pieces and in any order."""

    folder: OutputFolder

    def count(self) -> int:
        """Return how many samples the folder contains."""

    def has(self, piece: range) -> bool:
        """Return whether the folder contains all samples of a piece."""

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Write rows [len(piece), H, W, C] or [len(piece), dim], which may continue after the return."""

    def wait(self) -> None:
        """Wait until everything is written."""

    def finish(self, pieces: Sequence[range], labels: Tensor | None) -> None:
        """Complete the content, once all pieces exist."""

    def read(self, n: int) -> Tensor:
        """Return the first n samples: uint8 [n, C, H, W] or float32 [n, dim]."""


def begin_samples(
    store: SampleStore, n: int, settings: Json, conditions: Mapping[str, object], overwrite: bool
) -> None:
    """Begin or continue a folder of n samples, and write `samples.json`.

    Raises InputError for a folder of other settings, of more samples, or of files that are not samples, and while
    another process writes another number of samples there.
    """
    folder = store.folder
    folder.check(settings, overwrite)
    if not overwrite:
        _reject_more(store, n)
    folder.create()
    for path in (folder.path, folder.path.resolve().parent):  # the grid is beside the folder
        if not os.access(path, os.W_OK):
            raise InputError(f"{path}: not writable; name an output folder elsewhere")
    try:
        with folder.locks.beginning():
            if not folder.locks.acquire(FOLDER):
                _reject_other_number(folder, n, overwrite)
            if not overwrite:
                _reject_more(store, n)  # another process may have begun meanwhile
            folder.begin(settings, overwrite, {"n": n, "conditions": conditions})
            folder.locks.share(FOLDER)  # with processes that write the same samples
    except BaseException:
        folder.locks.close()
        raise


def _reject_other_number(folder: OutputFolder, n: int, overwrite: bool) -> None:
    """Raise InputError unless the process that writes to the folder writes n samples."""
    other = folder.read_settings().get("n")
    if overwrite or other != n:
        same = "" if other == n else f", use --n {other}"
        raise InputError(
            f"{folder.path}: another process writes {other} samples there; wait for it{same}, or name another folder"
        )


def _reject_more(store: SampleStore, n: int) -> None:
    if (count := store.count()) > n:
        raise InputError(
            f"{store.folder.path} already contains {count} samples, more than --n {n}; name another folder, or use "
            "--overwrite"
        )


class SampleImages:
    """A PNG for each sample. Threads encode the images of one piece while the network computes the next piece."""

    def __init__(self, out: Path, times: TaskTimes) -> None:
        self.folder, self.times = OutputFolder(out, SAMPLES), times
        self._pool = ThreadPoolExecutor(cores())
        self._partial_files = [
            path for path in out.glob("*.part") if _IMAGE.fullmatch(name_of_partial(path.name) or "")
        ]  # fmt: skip
        self._pending: list[Future[None]] = []

    def count(self) -> int:
        """Return one more than the highest number, among the images that the manifest states."""
        stated = _stated(self.folder.read_settings())
        numbers = (int(path.stem) + 1 for path in _images(self.folder.path))
        return max((number for number in numbers if number <= stated), default=0)

    def has(self, piece: range) -> bool:
        """Return whether all of these images exist."""
        return all(self._path(k).is_file() for k in piece)

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Begin to write those of the images [len(piece), H, W, C] that are missing. This process holds their lock."""
        self.wait()
        for path in self._partial_files:  # of a killed process
            if int(path.name.split(".")[0]) in piece:
                path.unlink(missing_ok=True)
        missing = [(self._path(k), image) for k, image in zip(piece, rows, strict=True) if not self._path(k).exists()]
        self._pending = [self._pool.submit(_write_png, path, image, self.times) for path, image in missing]

    def wait(self) -> None:
        """Wait until everything is written."""
        pending, self._pending = self._pending, []
        with self.times.on("waiting for files"):
            for future in pending:
                future.result()

    def finish(self, pieces: Sequence[range], labels: Tensor | None) -> None:
        """Do nothing: images are complete once they are written."""

    def read(self, n: int) -> Tensor:
        """Return the first n images: uint8 [n, C, H, W]."""
        images = []
        for path in _images(self.folder.path)[:n]:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image))
            images.append(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))
        return torch.stack(images)

    def _path(self, k: int) -> Path:
        return self.folder.path / _image_name(k)


class SampleArray:
    """One `samples.npz` of n samples, as ADM's evaluator reads it: `arr_0` and labels `arr_1`.

    `arr_0` is uint8 [n, H, W, C] or float32 [n, dim].
    """

    def __init__(self, out: Path, n: int) -> None:
        self.folder, self.n = OutputFolder(out, SAMPLES), n
        self._pieces, self._file = self.folder.pieces(), out / SAMPLES_ARRAY

    def count(self) -> int:
        """Return the length of the array; 0 if it does not exist."""
        return npz.read_headers(self._file)["arr_0"].shape[0] if self._file.is_file() else 0

    def has(self, piece: range) -> bool:
        """Return whether these samples exist, in the array or as a piece of it."""
        return self._pieces.has(piece) or self.count() == self.n

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Write rows [len(piece), H, W, C] or [len(piece), dim]."""
        self._pieces.write(piece, rows)

    def wait(self) -> None:
        """Return at once: `write` has written everything."""

    def finish(self, pieces: Sequence[range], labels: Tensor | None) -> None:
        """Join the pieces."""
        arrays = [self._pieces.read_all(pieces)]
        arrays += [labels.numpy()] if labels is not None else []
        with replacing(self._file) as part, part.open("wb") as file:
            np.savez(file, *arrays)
        self._pieces.remove()

    def read(self, n: int) -> Tensor:
        """Return the first n samples: uint8 [n, C, H, W] or float32 [n, dim]."""
        raw = torch.from_numpy(npz.read(self._file, ["arr_0"])["arr_0"][:n])
        return raw.permute(0, 3, 1, 2) if raw.ndim == 4 else raw


def _images(out: Path) -> list[Path]:
    paths = (path for path in out.glob("*.png") if _IMAGE.fullmatch(path.name))
    return sorted((path for path in paths if path.name == _image_name(int(path.stem))), key=lambda path: int(path.stem))


def _write_png(path: Path, image: np.ndarray, times: TaskTimes) -> None:
    with times.on("encoding (threads)"):
        png = io.BytesIO()
        from_array(image).save(png, format="PNG")
    with times.on("writing (threads)"), replacing(path) as part:
        part.write_bytes(png.getvalue())
