"""A dataset of image files, which are decoded when they are read and brought to one shape."""

import hashlib
import math
import mmap
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.containers import count_by_suffix
from tdpm_cli.data.dataset import EpochOrder, ImageSource, OrdersFiles
from tdpm_cli.data.decode import Box, TooSmall, prepare, to_array
from tdpm_cli.runtime.errors import BadFile, InputError

PREPARED = {
    "centre": "cropped at the centre to the aspect, resized by Lanczos",
    "wide": "cropped to the aspect, resized by Lanczos, on a black square",
    "dhariwal": "halved by averaging, resized by bicubic, cropped at the centre (Dhariwal and Nichol 2021)",
}


class ImageDataset:
    """uint8 [C, H, W] of image files: upright, on white where transparent, 16 bits scaled to 8, cropped and resized.

    `box` is cropped from each image first. Without a `raw_shape`, only `files` and the raw conditions are usable.
    Reading raises InputError, naming the file, for an image that cannot be decoded or that is smaller than the shape
    without `upscale`.
    """

    def __init__(
        self, files: ImageSource, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
        box: Box | None = None, notes: Sequence[str] = (),
    ) -> None:  # fmt: skip
        raw_shape = raw_shape or (3, 1, 1)
        if len(raw_shape) != 3:
            raise InputError(f"{files.path}: the data are images [C, H, W], but space.shape is {list(raw_shape)}")
        if crop == "wide" and raw_shape[1] != raw_shape[2]:
            raise InputError(f"data.crop is 'wide', which makes squares, but space.shape is {list(raw_shape)}")
        self.files, self.shape, self.crop, self.upscale, self.box = files, tuple(raw_shape), crop, upscale, box
        self.class_names = files.class_names
        cropped = f"box {box} of each, " if box else ""
        self.prepared = f"{cropped}{PREPARED[crop]}, turned upright: {list(raw_shape)}"
        self._notes = notes
        self._kept: tuple[np.ndarray, np.ndarray] | None = None  # images, and whether each has been decoded

    def __len__(self) -> int:
        return len(self.files.names)

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_kept": None}  # only forked processes share this memory

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        if self._kept is not None:
            images, is_kept = self._kept
            chosen = np.asarray(indices)
            for k in chosen[is_kept[chosen] == 0].tolist():
                images[k] = self._read(k)
                is_kept[k] = 1  # after the image: another process may be reading
            return torch.from_numpy(images[chosen]), self.raw_condition(indices)
        raw = np.empty((len(indices), *self.shape), np.uint8)
        for position, k in enumerate(indices):
            raw[position] = self._read(int(k))
        return torch.from_numpy(raw), self.raw_condition(indices)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of these images."""
        return self.files.raw_condition(indices)

    def keep_in_memory(self, limit: float) -> bool:
        """Keep images once they are decoded; return False if all of them need more than `limit` bytes."""
        count, size = len(self), math.prod(self.shape)
        if count * size > limit:
            return False
        images, is_kept = (np.frombuffer(mmap.mmap(-1, n), np.uint8) for n in (count * size, count))
        self._kept = images.reshape(count, *self.shape), is_kept
        return True

    def epoch_order(self) -> EpochOrder | None:
        """Return the order of the files that is fast to read; None where any order is."""
        return self.files.order if isinstance(self.files, OrdersFiles) else None

    @property
    def notes(self) -> list[str]:
        """Files that are left out, and why."""
        notes, files = [*self._notes], self.files
        if files.quarantined:
            notes.append(f"left out by the quarantine list: {files.quarantined:,} images")
        if files.without_caption:
            notes.append(f"without a caption: {len(files.without_caption):,} images, such as "
                         f"{files.without_caption[0]} (see data.uncaptioned)")  # fmt: skip
        if files.other_files:
            notes.append(f"ignored files, which are not images: {len(files.other_files):,} "
                         f"({count_by_suffix(files.other_files)}), such as {files.other_files[0]}")  # fmt: skip
        return notes

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes of all files, and of how they are brought to the shape."""
        return self._with_shape(self.files.fingerprint())

    def sha256(self) -> str:
        """Return the SHA-256 of all files, and of how they are brought to the shape."""
        return self._with_shape(self.files.sha256())

    def _with_shape(self, digest: str) -> str:
        return hashlib.sha256(f"{digest} {self.shape} {self.crop} {self.box}".encode()).hexdigest()

    def _read(self, k: int) -> np.ndarray:
        try:
            return to_array(prepare(self.files.content(k), self.shape, self.crop, self.upscale, self.box))
        except TooSmall as error:
            reason, advice = str(error), "remove such images, or set data.upscale=true"
        except ValueError as error:
            reason, advice = str(error), f"run `tdpm data verify {self.files.path}` to leave out all such files"
        raise BadFile(self.files.path, self.files.names[k], reason, advice)
