"""A data set of image files: decoded when asked for, and brought to one shape."""

import hashlib
import math
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config.constants import Crop
from tdpm_cli.data.decode import Box, prepare, to_array
from tdpm_cli.runtime.errors import BadFile, InputError

PREPARED = {
    "centre": "cropped at the centre to the aspect, resized by Lanczos",
    "wide": "cropped to the aspect, resized by Lanczos, on a black square",
    "dhariwal": "halved by averaging, resized by bicubic, cropped at the centre (Dhariwal and Nichol 2021)",
}


class Files(Protocol):
    """Image files by number."""

    path: Path
    classes: list[str]
    quarantined: int  # images that a list keeps out

    @property
    def names(self) -> Sequence[str]:
        """Of the images."""

    @property
    def aside(self) -> Sequence[str]:
        """Files that are no images."""

    def content(self, k: int) -> bytes:
        """The bytes of image k. Raises InputError where they cannot be had."""

    def conditions_of(self, indices: Sequence[int]) -> dict[str, Any]:
        """Labels and captions, where there are any."""

    def fingerprint(self) -> str:
        """A hash that costs little, for noticing a change."""

    def sha256(self) -> str:
        """A hash of the content."""


class Decoded:
    """uint8 [C, H, W]: image files, upright, transparent pixels laid on white, 16 bits scaled to 8, cropped, resized.

    `box` is cut out of each first. Reading raises InputError, naming the file, for one that cannot be decoded, or is
    smaller than the shape unless `upscale`.
    """

    def __init__(
        self, files: Files, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
        box: Box | None = None,
    ) -> None:  # fmt: skip
        raw_shape = raw_shape or (3, 1, 1)  # None: only the files are asked for
        if len(raw_shape) != 3:
            raise InputError(f"{files.path}: images have a shape [C, H, W], but the space has {list(raw_shape)}")
        if crop == "wide" and raw_shape[1] != raw_shape[2]:
            raise InputError(f"data.crop is 'wide', which makes squares, but space.shape is {list(raw_shape)}")
        self.files, self.shape, self.crop, self.upscale, self.box = files, tuple(raw_shape), crop, upscale, box
        self.names = files.classes
        cut = f"box {box} of each, " if box else ""
        self._kept: tuple[np.ndarray, np.ndarray] | None = None  # images, and whether each is there yet
        self.prepared = f"{cut}{PREPARED[crop]}, turned upright: {list(raw_shape)}"

    def __len__(self) -> int:
        return len(self.files.names)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": None}  # memory that only forked processes share

    def keep_in_memory(self, most: float) -> bool:
        """Keep every image once it is decoded, in memory that forked workers share; False beyond `most` bytes."""
        count, size = len(self), math.prod(self.shape)
        if count * size > most:
            return False
        images, there = (np.frombuffer(mmap.mmap(-1, n), np.uint8) for n in (count * size, count))
        self._kept = images.reshape(count, *self.shape), there
        return True

    @property
    def order(self) -> Callable[[np.random.Generator], np.ndarray] | None:
        """How an epoch goes through the images, where reading them in any order would be slow."""
        return getattr(self.files, "order", None)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
        if self._kept is not None:
            images, there = self._kept
            chosen = np.asarray(indices)
            for k in chosen[there[chosen] == 0].tolist():
                images[k] = self._read(k)
                there[k] = 1  # after the image: another process may be reading
            return torch.from_numpy(images[chosen]), self.files.conditions_of(indices)
        raw = np.empty((len(indices), *self.shape), np.uint8)
        for position, k in enumerate(indices):
            raw[position] = self._read(int(k))
        return torch.from_numpy(raw), self.files.conditions_of(indices)

    @property
    def notes(self) -> list[str]:
        """What a user should know of files that are not among the images."""
        said, files = [], self.files
        if files.quarantined:
            said.append(f"kept out by the quarantine list: {files.quarantined:,}")
        if without := getattr(files, "without_caption", ()):
            said.append(
                f"without a caption: {len(without):,}, such as {next(iter(without))} (data.uncaptioned decides)"
            )
        if files.aside:
            said.append(f"files that are no images, and stay aside: {len(files.aside):,}, such as {files.aside[0]}")
        return said

    def fingerprint(self) -> str:
        """Of all files, and of the shape they are brought to; sizes tell, not contents."""
        return self._with_shape(self.files.fingerprint())

    def sha256(self) -> str:
        """Of all files, and of the shape they are brought to."""
        return self._with_shape(self.files.sha256())

    def _with_shape(self, digest: str) -> str:
        return hashlib.sha256(f"{digest} {self.shape} {self.crop} {self.box}".encode()).hexdigest()

    def _read(self, k: int) -> np.ndarray:
        try:
            return to_array(prepare(self.files.content(k), self.shape, self.crop, self.upscale, self.box))
        except ValueError as error:
            advice = (
                "take such images out, or set data.upscale=true"
                if "smaller" in str(error)
                else f"let `tdpm data verify {self.files.path}` put all such files in quarantine, or, before a run "
                "begins, repair it"
            )
            raise BadFile(self.files.path, self.files.names[k], str(error), advice) from None
