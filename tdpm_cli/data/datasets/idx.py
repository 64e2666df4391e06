"""Images in idx files, as MNIST and its kin are published (http://yann.lecun.com/exdb/mnist): grey, gzipped or not."""

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

__all__ = ["idx"]

Split = Literal["train", "test"]
PREFIX = {"train": "train", "test": "t10k"}  # of the published files
MOST = 1 << 33  # bytes that a file may say it holds


def idx(path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train") -> TensorDataset:
    """uint8 [1, H, W] and labels, from a folder with `train-images-idx3-ubyte`, `train-labels-idx1-ubyte`, or their
    .gz; `t10k-` for the split "test"; or from a file of images itself. Labels may be missing.

    Raises InputError for files that are missing, damaged, or of different lengths.
    """
    if path is None:
        raise InputError("no images: give a folder with idx files with --data PATH")
    images = find(path, split, "images") if path.is_dir() else path
    if images is None:
        raise InputError(f"--data {path}: no {PREFIX[split]}-images-idx3-ubyte or .gz there")
    labels = images.with_name(images.name.replace("images", "labels").replace("idx3", "idx1"))
    raw = read(images, 3)[:, None]
    return TensorDataset(
        raw, raw_shape, str(images), read(labels, 1) if labels != images and labels.is_file() else None
    )


def recognises(path: Path) -> bool:
    """Whether `path` holds such files."""
    if path.is_dir():
        return any(find(path, split, "images") for split in PREFIX)
    return "idx3-ubyte" in path.name


def find(folder: Path, split: str, what: str) -> Path | None:
    """The file of images or labels of a split, gzipped or not."""
    dimensions = {"images": 3, "labels": 1}[what]
    for separator in "-.":  # both are met
        for suffix in ("", ".gz"):
            path = folder / f"{PREFIX[split]}-{what}{separator}idx{dimensions}-ubyte{suffix}"
            if path.is_file():
                return path
    return None


def read(path: Path, dimensions: int) -> Tensor:
    """The uint8 array of an idx file, of so many dimensions."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else path.open("rb") as file:
            header = file.read(4 + 4 * dimensions)
            if len(header) < 4 + 4 * dimensions or header[:4] != bytes([0, 0, 8, dimensions]):
                raise InputError(f"{path}: not an idx file of bytes in {dimensions} dimensions; fetch it again")
            shape = struct.unpack(f">{dimensions}I", header[4:])
            size = math.prod(shape)
            if size > MOST:
                raise InputError(f"{path}: it says that it holds {list(shape)} bytes; at most {MOST:,} are accepted")
            content = file.read(size + 1)
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"{path}: cannot be read ({error}); fetch it again") from None
    if len(content) != size:
        found = "more" if len(content) > size else f"{len(content):,}"
        raise InputError(f"{path}: it says that it holds {size:,} bytes, but holds {found}; fetch it again")
    return torch.frombuffer(bytearray(content), dtype=torch.uint8).view(shape)
