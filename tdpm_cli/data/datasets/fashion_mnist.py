"""Fashion-MNIST: 60,000 + 10,000 grey images of 28×28, articles of clothing in 10 classes (Xiao et al. 2017)."""

from collections.abc import Sequence
from pathlib import Path

from platformdirs import user_cache_path

from tdpm_cli.data.datasets.idx import PREFIX, Split, find, read
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError

__all__ = ["fashion_mnist"]

CLASSES = ("T-shirt/top", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")
DEBIAN = Path("/usr/share/datasets/fashion-mnist")  # of its package dataset-fashion-mnist
INSIDE = Path("FashionMNIST/raw")  # of the root of torchvision's data set


def fashion_mnist(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Split = "train", download: bool = False
) -> TensorDataset:
    """uint8 [1, 28, 28] and labels 0..9.

    Read from `path` (the idx files, or torchvision's root), or where Debian puts them, or from the user's cache;
    `download` fetches them to `path` or the cache, checked by torchvision. Raises InputError where they are missing.
    """
    cache = user_cache_path("tdpm") / "data"
    places = [path, path / INSIDE] if path else [DEBIAN, cache / INSIDE]
    if download and not any(_complete(place, split) for place in places):
        _download(path or cache)
    folder = next((place for place in places if _complete(place, split)), None)
    if folder is None:
        listed = " and ".join(map(str, places))
        raise InputError(
            f"the data 'fashion-mnist' are not in {listed}. Give --download to fetch them (30 MB); or on Debian and "
            "Ubuntu: apt install dataset-fashion-mnist; or put train-images-idx3-ubyte.gz and "
            "train-labels-idx1-ubyte.gz of https://github.com/zalandoresearch/fashion-mnist into a folder for --data"
        )
    images, labels = (find(folder, split, what) for what in ("images", "labels"))
    assert images is not None, "the folder is complete"
    assert labels is not None, "the folder is complete"
    return TensorDataset(read(images, 3)[:, None], raw_shape, str(folder), read(labels, 1), CLASSES)


def recognises(path: Path) -> bool:
    """Whether `path` is torchvision's root, or Debian's folder: idx files alone could be of other data."""
    return path == DEBIAN or any(_complete(path / INSIDE, split) for split in PREFIX)


def _complete(folder: Path, split: str) -> bool:
    return all(find(folder, split, what) for what in ("images", "labels"))


def _download(root: Path) -> None:
    from torchvision.datasets import FashionMNIST

    try:
        FashionMNIST(str(root), download=True)
    except (OSError, RuntimeError) as error:
        raise InputError(f"--download: Fashion-MNIST could not be fetched to {root} ({error})") from None
