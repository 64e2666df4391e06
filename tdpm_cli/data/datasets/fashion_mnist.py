"""Fashion-MNIST: 60,000 + 10,000 grey images of 28×28, articles of clothing in 10 classes (Xiao et al. 2017)."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

from platformdirs import user_cache_path

from tdpm_cli.data.datasets.idx import PREFIX, Split, find, read
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError

__all__ = ["fashion_mnist"]

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # where Debian's package dataset-fashion-mnist installs it
RAW = Path("FashionMNIST/raw")  # in the root of torchvision's dataset


def fashion_mnist(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train", download: bool = False
) -> TensorDataset:
    """uint8 [1, 28, 28] and labels 0..9.

    `path` is the folder of the idx files, or torchvision's root; by default Debian's folder, or the user's cache.
    `download` fetches the files, and torchvision checks them. Raises InputError if they are missing.
    """
    cache = user_cache_path("tdpm") / "data"
    folders = [path, path / RAW] if path else [DEBIAN, cache / RAW]
    if download and not any(_is_complete(folder, split) for folder in folders):
        _download(path or cache)
    folder = next((folder for folder in folders if _is_complete(folder, split)), None)
    if folder is None:
        raise InputError(
            f"Fashion-MNIST not found in {' or '.join(map(str, folders))}; add --download (30 MB), or on Debian and "
            "Ubuntu run: apt install dataset-fashion-mnist, or put train-images-idx3-ubyte.gz and "
            "train-labels-idx1-ubyte.gz of https://github.com/zalandoresearch/fashion-mnist into a folder, and name "
            "it with --data"
        )
    images, labels = (find(folder, split, content) for content in ("images", "labels"))
    assert images is not None, "the folder is complete"
    assert labels is not None, "the folder is complete"
    return TensorDataset(read(images, 3)[:, None], raw_shape, str(folder), read(labels, 1), CLASSES)


def recognises(path: Path) -> bool:
    """Return whether `path` is torchvision's root or Debian's folder. Other idx files may be other data."""
    return path == DEBIAN or any(_is_complete(path / RAW, split) for split in PREFIX)


def _is_complete(folder: Path, split: str) -> bool:
    return all(find(folder, split, content) for content in ("images", "labels"))


def _download(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        with redirect_stdout(io.StringIO()):  # torchvision prints what it has verified
            FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"--download: Fashion-MNIST could not be downloaded to {root} ({error})") from None
