"""Images of a folder or a zip, labelled by the folder they lie in."""

import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from tdpm_cli.errors import InputError

__all__ = ["Images"]

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}


class Images:
    """uint8 [C, H, W]: every image below `path`, cropped at the centre to the aspect, resized by Lanczos.

    Where all images lie in two or more folders of the first level, those are the classes, in alphabetical order;
    folders that wrap everything, and hidden files, do not count. 16-bit greys are scaled to 8.
    Files are read in each worker, and a zip is never unpacked. Raises InputError for a missing or empty path,
    and, naming the file, for one that cannot be decoded.
    """

    def __init__(self, path: Path | None, raw_shape: Sequence[int]) -> None:
        if path is None:
            raise InputError("no images: give a folder or a zip with --data PATH")
        if not path.exists():
            raise InputError(f"--data {path}: no such file or folder")
        if len(raw_shape) != 3:
            raise InputError(f"the data 'images' have shape [C, H, W], but the space has {list(raw_shape)}")
        self.path, (self.channels, self.height, self.width) = path, raw_shape
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        self.files = self._list()
        if not self.files:
            raise InputError(f"--data {path}: no images found; accepted: {' '.join(sorted(SUFFIXES))}")
        parents = [PurePosixPath(name).parts[:-1] for name in self.files]
        # Folders that wrap everything tell nothing apart.
        around = next((k for k, names in enumerate(zip(*parents, strict=False)) if len(set(names)) > 1), None)
        classes = [None if around is None else parent[around] for parent in parents]
        self.names = [] if None in classes else sorted({name for name in classes if name})
        number = {name: k for k, name in enumerate(self.names)}
        self._labels = torch.tensor([number[str(name)] for name in classes]) if self.names else None

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        raw = torch.stack([self._read(self.files[int(k)]) for k in indices])
        return raw, {} if self._labels is None else {"label": self._labels[torch.as_tensor(indices)]}

    def size_of(self, k: int) -> tuple[int, int]:
        """Height and width of image k as it lies on the disk."""
        image = self._open(self.files[k])
        return image.height, image.width

    def _list(self) -> list[str]:
        if self.path.is_dir():
            found = (
                Path(folder, name).relative_to(self.path).as_posix()
                for folder, _, names in os.walk(self.path)
                for name in names
            )
        else:
            found = (entry.filename for entry in self._zip().infolist() if not entry.is_dir())
        return sorted(name for name in found if _is_image(PurePosixPath(name)))

    def _zip(self) -> zipfile.ZipFile:
        # A handle must not be shared with a forked worker: both would move one file position.
        if self._archive is None or self._archive[0] != os.getpid():
            try:
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(f"--data {self.path}: neither a folder nor a zip that can be read ({error})") from None
        return self._archive[1]

    def _open(self, name: str) -> Image.Image:
        try:
            data = (self.path / name).read_bytes() if self.path.is_dir() else self._zip().read(name)
            return ImageOps.exif_transpose(Image.open(io.BytesIO(data)))
        except Exception as error:  # decoders raise anything on damaged data
            raise InputError(
                f"{self.path}: {name} is not an image that can be decoded ({error}); repair it or take it out"
            ) from None

    def _read(self, name: str) -> Tensor:
        image = self._open(name)
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image).astype(np.float64) / 257).round().clip(0, 255).astype(np.uint8))
        image = image.convert("L" if self.channels == 1 else "RGB")
        if image.size != (self.width, self.height):
            image = ImageOps.fit(image, (self.width, self.height), Image.Resampling.LANCZOS)
        pixels = torch.from_numpy(np.array(image))
        return pixels.view(self.height, self.width, self.channels).permute(2, 0, 1)


def _is_image(path: PurePosixPath) -> bool:
    hidden = any(part.startswith(".") or part == "__MACOSX" for part in path.parts)
    return path.suffix.lower() in SUFFIXES and not hidden
