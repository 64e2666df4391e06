"""CIFAR-10: 50,000 + 10,000 colour images of 32×32 in 10 classes (Krizhevsky 2009), as torchvision reads it."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import torch
from platformdirs import user_cache_path

from tdpm_cli.data.datasets.idx import Split
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError, first_line

__all__ = ["cifar10"]

FOLDER, ARCHIVE = "cifar-10-batches-py", "cifar-10-python.tar.gz"
URL = f"https://www.cs.toronto.edu/~kriz/{ARCHIVE}"


def cifar10(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train", download: bool = False
) -> TensorDataset:
    """uint8 [3, 32, 32] and labels 0..9, in memory.

    `path` is the folder `cifar-10-batches-py`, or the folder that contains it or its archive; by default the user's
    cache. `download` fetches the archive. torchvision checks the published hash of every file before it reads it,
    because the files are pickles. Raises InputError for files that are missing or are not the published ones.
    """
    from torchvision.datasets import CIFAR10

    root = path or user_cache_path("tdpm") / "data"
    root = root.parent if root.name in (FOLDER, ARCHIVE) else root
    # With download=True, torchvision unpacks and checks an archive that is present without a network.
    only_archive = (root / ARCHIVE).is_file() and not (root / FOLDER).is_dir()
    try:
        with redirect_stdout(io.StringIO()):  # torchvision prints what it has verified
            data = CIFAR10(str(root), train=split == "train", download=download or only_archive)
    except Exception as error:  # RuntimeError for a wrong hash, OSError without a network
        reason = (
            f" ({first_line(error)})" if isinstance(error, OSError) else ""
        )  # others advise what tdpm does not have
        raise InputError(
            f"CIFAR-10 not found in {root}, or its files are not the published ones{reason}; add --download "
            f"(170 MB), or run: curl -LO {URL}, and name its folder with --data. For CIFAR-10 as image files, use "
            "data.name=images"
        ) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return TensorDataset(images, raw_shape, str(root), torch.tensor(data.targets), data.classes)


def recognises(path: Path) -> bool:
    """Return whether `path` contains the batches or their archive."""
    return path.name in (FOLDER, ARCHIVE) or (path / FOLDER).is_dir() or (path / ARCHIVE).is_file()
