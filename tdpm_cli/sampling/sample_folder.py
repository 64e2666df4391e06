"""A folder of samples: what it holds, what is missing, and how several processes fill it without partial files.

Images lie in it as `000000.png`, and so on. An array is one `samples.npz`; until it is whole, its pieces lie in
`.pieces`. `samples.json` tells what all of them depend on.
"""

import io
import json
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.runtime import npz
from tdpm_cli.runtime.console import Spent
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, write_text, writing
from tdpm_cli.runtime.locks import MAX_NUMBERS, WorkLocks, exclusive
from tdpm_cli.sampling import output

MANIFEST, ARRAY, PIECES, LOCKS = "samples.json", "samples.npz", ".pieces", ".locks"


def prepare(
    held: "Images | Array", n: int, manifest: Mapping[str, Any], conditions: Mapping[str, Any], overwrite: bool
) -> None:
    """Make the folder for n samples, or see that it holds some of the same settings, and write `samples.json`.

    Raises InputError for a folder of other settings or more samples, or of files that are not samples.
    """
    out = held.out
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: it is a file; name a folder for the samples")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if MANIFEST not in names and not all(map(_is_passing, names)):
        raise InputError(f"{out}: it holds files that tdpm did not write; name another folder")
    if not overwrite:
        _refuse_others(held, n, manifest)
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    for folder in (out, out.resolve().parent):  # the grid lies beside the folder
        if not os.access(folder, os.W_OK):
            raise InputError(f"{folder}: it cannot be written to; name an output folder elsewhere")
    with exclusive(out / LOCKS) as locks:
        if overwrite:
            _clear(out, locks)
        _refuse_others(held, n, manifest)  # another process may have come first
        write_text(out / MANIFEST, json.dumps({**manifest, "conditions": conditions}, indent=1))


def read_manifest(out: Path) -> dict[str, Any]:
    """Return the content of `samples.json`; {} if there is none. Raises InputError for a damaged file."""
    return output.read_json(out / MANIFEST)


def _refuse_others(held: "Images | Array", n: int, manifest: Mapping[str, Any]) -> None:
    if not (before := read_manifest(held.out)):
        return
    output.reject_other_settings(held.out, before, manifest)
    if (count := held.count()) > n:
        raise InputError(
            f"{held.out} already holds {count} samples, more than --n {n}; name another folder or --overwrite"
        )


class Images:
    """A PNG for each sample, encoded by a pool of threads while the next are computed."""

    def __init__(self, out: Path, spent: Spent) -> None:
        self.out, self.spent = out, spent
        self._pool = ThreadPoolExecutor(os.cpu_count())
        self._left_behind = [path for path in out.glob("*.part") if _IMAGE.match(path.name)]
        self._pending: list[Future[None]] = []

    def count(self) -> int:
        """One more than the highest number there."""
        return max((int(path.stem) + 1 for path in _images(self.out)), default=0)

    def has(self, piece: range) -> bool:
        """Whether all of these images are there."""
        return all(self._path(k).is_file() for k in piece)

    def write(self, piece: range, pixels: np.ndarray) -> None:
        """Write what is missing of pixels [len(piece), H, W, C], whose numbers this process holds."""
        self.wait()
        for path in self._left_behind:  # by a process that was killed
            if int(path.name.split(".")[0]) in piece:
                path.unlink(missing_ok=True)
        missing = [(self._path(k), image) for k, image in zip(piece, pixels, strict=True) if not self._path(k).exists()]
        self._pending = [self._pool.submit(_write_png, path, image, self.spent) for path, image in missing]

    def wait(self) -> None:
        """Wait until all that was given is written."""
        pending, self._pending = self._pending, []
        with self.spent.on("waiting for files"):
            for future in pending:
                future.result()

    def read(self, n: int) -> Tensor:
        """uint8 [n, C, H, W]."""
        images = []
        for path in _images(self.out)[:n]:
            with Image.open(path) as image:
                pixels = torch.from_numpy(np.array(image))
            images.append(pixels[None] if pixels.ndim == 2 else pixels.permute(2, 0, 1))
        return torch.stack(images)

    def _path(self, k: int) -> Path:
        return self.out / f"{k:06d}.png"


class Array:
    """One `samples.npz` of n, as ADM's evaluator reads it: `arr_0` [n, H, W, C] uint8 or [n, dim] float32, and labels
    `arr_1`."""

    def __init__(self, out: Path, n: int) -> None:
        self.out, self.n, self.pieces = out, n, output.Pieces(out / PIECES)

    def count(self) -> int:
        """The length of the array."""
        return npz.read_headers(self.out / ARRAY)["arr_0"].shape[0] if (self.out / ARRAY).is_file() else 0

    def has(self, piece: range) -> bool:
        """Whether these samples are there, in the array or as a piece of it."""
        return self.pieces.has(piece) or self.count() == self.n

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Write rows [len(piece), H, W, C] or [len(piece), dim]."""
        self.pieces.write(piece, rows)

    def wait(self) -> None:
        """Nothing to wait for."""

    def finish(self, pieces: Sequence[range], labels: Tensor | None) -> None:
        """Put the pieces together."""
        arrays = [self.pieces.read_all(pieces)]
        arrays += [labels.numpy()] if labels is not None else []
        with replacing(self.out / ARRAY) as part, part.open("wb") as file:
            np.savez(file, *arrays)
        self.pieces.remove()

    def read(self, n: int) -> Tensor:
        """uint8 [n, C, H, W] or float32 [n, dim]."""
        raw = torch.from_numpy(npz.read(self.out / ARRAY, ["arr_0"])["arr_0"][:n])
        return raw.permute(0, 3, 1, 2) if raw.ndim == 4 else raw


_IMAGE = re.compile(r"\d{6,}\.png")


def _images(out: Path) -> list[Path]:
    return sorted((path for path in out.glob("*.png") if _IMAGE.fullmatch(path.name)), key=lambda p: int(p.stem))


def _write_png(path: Path, image: np.ndarray, spent: Spent) -> None:
    with spent.on("encoding (threads)"):
        png = io.BytesIO()
        Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(png, format="PNG")
    with spent.on("writing (threads)"), replacing(path) as part:
        part.write_bytes(png.getvalue())


def _is_passing(name: str) -> bool:
    """Whether it lies there only while samples are made."""
    return name in (PIECES, LOCKS) or name.endswith(".part")


def _clear(out: Path, locks: WorkLocks) -> None:
    """Remove all samples. Raises InputError while another process makes some."""
    if not locks.acquire(0, MAX_NUMBERS):
        raise InputError(f"{out}: another process writes samples there; wait for it, or name another folder")
    shutil.rmtree(out / PIECES, ignore_errors=True)
    for path in list(out.iterdir()):
        if path.name in (MANIFEST, ARRAY) or _IMAGE.match(path.name):
            path.unlink(missing_ok=True)
