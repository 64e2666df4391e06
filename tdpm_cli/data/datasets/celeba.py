"""CelebA, aligned: 202,599 colour photographs of faces, 178×218 (Liu et al. 2015)."""

import io
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path

from tdpm_cli.config.types import ExternalPath
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import ImageFiles, Selection
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_regular

__all__ = ["celeba"]

IMAGES, PARTITION = "img_align_celeba", "list_eval_partition.txt"
SPLIT_NUMBERS = {"train": "0", "valid": "1", "test": "2"}
FACE = (25, 57, 153, 185)  # 128² pixels around (89, 121), as DDIM's code crops them (Song et al. 2021)


def celeba(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Literal["train", "valid", "test", "all"] = "train",
    download: bool = False, quarantine: ExternalPath | None = None,
) -> ImageDataset:  # fmt: skip
    """The square of 128 pixels around the face, resized by Lanczos.

    `path` is the folder or zip of the images, or the folder that contains it, with `list_eval_partition.txt` there or
    beside it unless the split is "all". `download` fetches all files with torchvision, which needs gdown.
    """
    root = path or user_cache_path("tdpm") / "data" / "celeba"
    if download and _images(root) is None:
        _download(root)
    images = _images(root)
    if images is None:
        raise InputError(
            f"CelebA not found in {root}; add --download (1.4 GB; needs: pip install gdown), or put {IMAGES}.zip and "
            f"{PARTITION} from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into a folder, and name it with --data"
        )
    files = ImageFiles(images, selection=Selection(Path(quarantine) if quarantine else None), classed=False)
    if split != "all":
        names = _names_in(images, split)
        files.restrict(lambda name: Path(name).name in names, f"the split {split!r} of {PARTITION}; use data.split=all")
    return ImageDataset(files, raw_shape, box=FACE)


def recognises(path: Path) -> bool:
    """Return whether `path` contains the images under their published name."""
    return path.name.startswith(IMAGES) or _images(path) not in (None, path)


def _images(root: Path) -> Path | None:
    if root.name.startswith(IMAGES) and root.exists():
        return root
    paths = (root / folder / f"{IMAGES}{suffix}" for folder in ("", "celeba") for suffix in ("", ".zip"))
    return next((path for path in paths if path.exists()), None)


def _names_in(images: Path, split: str) -> frozenset[str]:
    paths = [images / PARTITION, images.parent / PARTITION]
    file = next((path for path in paths if path.is_file()), None)
    if file is None:
        raise InputError(f"{images.parent}: {PARTITION}, which lists the splits, not found; download it, or set "
                         "data.split=all")  # fmt: skip
    rows = (line.split() for line in read_regular(file).decode("utf-8", "replace").splitlines())
    return frozenset(row[0] for row in rows if len(row) == 2 and row[1] == SPLIT_NUMBERS[split])


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA

    parent = root.parent if root.name == "celeba" else root
    try:
        with redirect_stdout(io.StringIO()):  # torchvision prints what it has verified
            CelebA(str(parent), download=True)
    except Exception as error:  # of the network, of a wrong hash, or a missing gdown
        raise InputError(f"--download: CelebA could not be downloaded to {parent} ({error})") from None
