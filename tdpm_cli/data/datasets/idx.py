"""Grey images in idx files, gzipped or not, as MNIST is published (http://yann.lecun.com/exdb/mnist)."""

import gzip
import math
import struct
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import require_regular

__all__ = ["idx"]

Split = Literal["train", "test"]
PREFIX = {"train": "train", "test": "t10k"}  # of the published files
MAX_IDX_BYTES = 1 << 33  # that a header may state


def idx(path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train") -> TensorDataset:
    """uint8 [1, H, W] and labels, from a folder with `train-images-idx3-ubyte` and `train-labels-idx1-ubyte`.

    Files may end in .gz; those of the split "test" begin with `t10k-`. `path` may be a file of images itself. Labels
    may be missing. Raises InputError for files that are missing, damaged, or of different lengths.
    """
    if path is None:
        raise InputError("no images; name a folder with idx files with --data PATH")
    images = find(path, split, "images") if path.is_dir() else path
    if images is None:
        raise InputError(f"--data {path}: {PREFIX[split]}-images-idx3-ubyte or .gz not found")
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    raw = read(images, 3)[:, None]
    has_labels = labels != images and labels.is_file()
    return TensorDataset(raw, raw_shape, str(images), read(labels, 1) if has_labels else None)


def recognises(path: Path) -> bool:
    """Return whether `path` contains idx files of images, or is one."""
    if path.is_dir():
        return any(find(path, split, "images") for split in PREFIX)
    return "idx3-ubyte" in path.name


def find(folder: Path, split: str, content: str) -> Path | None:
    """Return the file of "images" or "labels" of a split, gzipped or not; None if there is none."""
    dimensions = {"images": 3, "labels": 1}[content]
    for separator in "-.":  # both are in use
        for suffix in ("", ".gz"):
            path = folder / f"{PREFIX[split]}-{content}{separator}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def read(path: Path, dimensions: int) -> Tensor:
    """Return the uint8 array of an idx file. Raises InputError for a damaged one, or one of other dimensions."""
    try:
        require_regular(path)
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise InputError(f"{path}: not an idx file of bytes in {dimensions} dimensions; download it again")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size > MAX_IDX_BYTES:
                raise InputError(f"{path}: its header states {size:,} bytes; at most {MAX_IDX_BYTES:,} are accepted")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); download it again") from None
    if len(content) != size:
        length = "more" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path}: its header states {size:,} bytes, but it has {length}; download it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)
