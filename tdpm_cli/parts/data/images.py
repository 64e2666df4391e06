"""Images of a folder or a zip, labelled by `dataset.json` or by the folder they lie in."""

import hashlib
import io
import json
import os
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tdpm_cli.errors import InputError

__all__ = ["Images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
LABELS = "dataset.json"  # of EDM and StyleGAN: {"labels": [["00000/img00000000.png", 6], ...]}


class Images:
    """uint8 [C, H, W]: every image below `path`, cropped at the centre to the aspect, resized by Lanczos.

    16-bit greys are scaled to 8. Raises InputError for a missing or empty path, and, naming the file, for one
    that cannot be decoded.
    """

    def __init__(self, path: Path | None, raw_shape: Sequence[int]) -> None:
        if path is None:
            raise InputError("no images: give a folder or a zip with --data PATH")
        if len(raw_shape) != 3:
            raise InputError(f"the data 'images' have shape [C, H, W], but the space has {list(raw_shape)}")
        self.files, (self.channels, self.height, self.width) = ImageFiles(path), raw_shape
        self.names = self.files.classes
        self.prepared = f"cropped at the centre, resized by Lanczos, turned upright: {list(raw_shape)}"

    def __len__(self) -> int:
        return len(self.files.names)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        return torch.stack([self._read(int(k)) for k in indices]), self.files.labels_of(indices)

    def sha256(self) -> str:
        """Of all files, and of the shape they are brought to."""
        return hashlib.sha256(f"{self.files.sha256()} {self.channels} {self.height} {self.width}".encode()).hexdigest()

    def _read(self, k: int) -> Tensor:
        image = self.files.open(k, upright=True)
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
        image = image.convert("L" if self.channels == 1 else "RGB")
        if image.size != (self.width, self.height):
            image = ImageOps.fit(image, (self.width, self.height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image))
        return pixels.view(self.height, self.width, self.channels).permute(2, 0, 1)


class ImageFiles:
    """The image files below a folder or in a zip, sorted by `names`, and their `classes`.

    Classes are the numbers of a `dataset.json`, or else, where all images lie in two or more folders of the first
    level, these folders in alphabetical order; folders that wrap everything, and hidden files, do not count.
    A zip is never unpacked, and may be read by several processes. Raises InputError for a missing or empty path.
    """

    def __init__(self, path: Path, option: str = "--data") -> None:
        if not path.exists():
            raise InputError(f"{option} {path}: no such file or folder")
        self.path, self.option = path, option
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        everything = self._list()
        self.names = sorted(name for name in everything if _is_image(PurePosixPath(name)))
        if not self.names:
            raise InputError(f"{option} {path}: no images found; accepted: {' '.join(sorted(SUFFIXES))}")
        self.classes, numbers = self._by_json() if LABELS in everything else self._by_folder()
        self._labels = torch.tensor(numbers) if self.classes else None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}  # a zip's handle stays in its process

    def labels_of(self, indices: Sequence[int]) -> dict[str, Tensor]:
        """{"label": [len(indices)]} where the files have classes, else {}."""
        return {} if self._labels is None else {"label": self._labels[torch.as_tensor(indices)]}

    def read(self, name: str) -> bytes:
        """The file's content."""
        return (self.path / name).read_bytes() if self.path.is_dir() else self._zip().read(name)

    def open(self, k: int, upright: bool) -> Image.Image:
        """Image k, decoded, as it lies or turned `upright`. Raises InputError, naming the file, where it cannot be."""
        try:
            image = Image.open(io.BytesIO(self.read(self.names[k])))
            image.load()
            return ImageOps.exif_transpose(image) if upright else image
        except Exception as error:  # decoders raise anything on damaged data
            raise InputError(
                f"{self.path}: {self.names[k]} is not an image that can be decoded ({error}); repair it or take it out"
            ) from None

    def sha256(self) -> str:
        """Of the names, contents and classes of all images; of a zip, by its own checksums."""
        labels = [] if self._labels is None else self._labels.tolist()
        digest = hashlib.sha256(f"{self.classes} {labels}".encode())
        for name in self.names:
            if self.path.is_dir():
                try:
                    content = hashlib.sha256(self.read(name)).hexdigest()
                except OSError as error:  # such as a link to nowhere, which reading will name
                    content = str(error)
            else:
                entry = self._zip().getinfo(name)
                content = f"{entry.file_size} {entry.CRC}"
            digest.update(f"{name}\0{content}\n".encode())
        return digest.hexdigest()

    def _list(self) -> set[str]:
        if self.path.is_dir():
            return {path.relative_to(self.path).as_posix() for path in _files(self.path)}
        return {entry.filename for entry in self._zip().infolist() if not entry.is_dir()}

    def _zip(self) -> zipfile.ZipFile:
        # A handle must not be shared with a forked worker: both would move one file position.
        if self._archive is None or self._archive[0] != os.getpid():
            try:
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(
                    f"{self.option} {self.path}: neither a folder nor a zip that can be read ({error})"
                ) from None
        return self._archive[1]

    def _by_folder(self) -> tuple[list[str], list[int]]:
        parents = [PurePosixPath(name).parts[:-1] for name in self.names]
        # Folders that wrap everything tell nothing apart.
        around = next((k for k, parts in enumerate(zip(*parents, strict=False)) if len(set(parts)) > 1), None)
        if around is None:
            return [], []
        classes = sorted({parent[around] for parent in parents})
        number = {name: k for k, name in enumerate(classes)}
        return classes, [number[parent[around]] for parent in parents]

    def _by_json(self) -> tuple[list[str], list[int]]:
        try:
            labels = json.loads(self.read(LABELS)).get("labels")
            label = dict(labels) if labels else {}
            numbers = [label[name] for name in self.names] if label else []
        except (ValueError, TypeError, AttributeError) as error:
            raise InputError(f"{self.path}: {LABELS} is damaged ({error}); repair it or take it out") from None
        except KeyError as error:
            raise InputError(f"{self.path}: {LABELS} has no label of {error}; add it or take {LABELS} out") from None
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise InputError(f"{self.path}: {LABELS} has labels other than the numbers of classes; take it out")
        return ([str(k) for k in range(max(numbers) + 1)] if numbers else []), numbers


def _files(folder: Path) -> Iterator[Path]:
    """All files below a folder, through links too, but through none twice."""
    seen: set[str] = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(place)) in seen:
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(place, name) for name in names)


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden
