"""CIFAR-10: 50,000 + 10,000 colour images of 32×32 in 10 classes (Krizhevsky 2009), as torchvision reads it."""

from collections.abc import Sequence
from pathlib import Path

import torch
from platformdirs import user_cache_path

from tdpm_cli.data.datasets.idx import Split
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError

__all__ = ["cifar10"]

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"


def cifar10(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train", download: bool = False
) -> TensorDataset:
    """uint8 [3, 32, 32] and labels 0..9, in memory.

    `path` is the folder `cifar-10-batches-py`, or the one that holds it or its archive; without it the user's cache.
    `download` fetches it there. torchvision checks every file's published hash before it is read, for they are
    pickles. Raises InputError, with the steps to get the data, where they are missing or not the published ones.
    """
    from torchvision.datasets import CIFAR10

    root = path or user_cache_path("tdpm") / "data"
    root = root.parent if root.name in (FOLDER, ARCHIVE) else root
    # Present files are unpacked and checked in the same way as fetched ones, without a network.
    present = (root / ARCHIVE).is_file() and not (root / FOLDER).is_dir()
    try:
        data = CIFAR10(str(root), train=split == "train", download=download or present)
    except Exception as error:  # RuntimeError for a wrong hash, OSError without a network
        raise InputError(
            f"the data 'cifar10' are not in {root}, or are not the published files ({error}). Give --download to fetch "
            f"them (170 MB); or: curl -LO {URL}, and --data the folder it is in. Images of CIFAR-10 in a folder or a "
            "zip are read by --data alone"
        ) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return TensorDataset(images, raw_shape, str(root), torch.tensor(data.targets), data.classes)


def recognises(path: Path) -> bool:
    """Whether `path` holds the batches or their archive."""
    return path.name in (FOLDER, ARCHIVE) or (path / FOLDER).is_dir() or (path / ARCHIVE).is_file()
