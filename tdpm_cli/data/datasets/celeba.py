"""CelebA, aligned: 202,599 colour photographs of faces, 178×218 (Liu et al. 2015)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from platformdirs import user_cache_path

from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.runtime.errors import InputError

__all__ = ["celeba"]

IMAGES, SPLITS = "img_align_celeba", "list_eval_partition.txt"
NUMBER = {"train": "0", "valid": "1", "test": "2"}
FACE = (25, 57, 153, 185)  # 128² pixels around (89, 121), as DDIM's code cuts them (Song et al. 2021)


def celeba(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: Literal["train", "valid", "test", "all"] = "train",
    download: bool = False, quarantine: str | None = None,
) -> ImageDataset:  # fmt: skip
    """The square of 128 pixels around the face, resized by Lanczos.

    `path` is the folder or the zip of the images, or the one that holds them, with `list_eval_partition.txt` there or
    beside unless the split is "all". `download` fetches all by torchvision (it needs gdown).
    """
    root = path or user_cache_path("tdpm") / "data" / "celeba"
    if download and _images(root) is None:
        _download(root)
    images = _images(root)
    if images is None:
        raise InputError(
            f"the data 'celeba' are not in {root}. Give --download (1.4 GB; it needs: pip install gdown); or fetch "
            f"{IMAGES}.zip and {SPLITS} from https://mmlab.ie.cuhk.edu.hk/projects/CelebA.html into a folder, and give "
            "it as --data"
        )
    files = ImageFiles(images, quarantine=Path(quarantine) if quarantine else None, classed=False)
    if split != "all":
        chosen = _chosen(images, split)
        files.restrict(lambda name: Path(name).name in chosen, f"the split {split!r} of {SPLITS}; use data.split=all")
    return ImageDataset(files, raw_shape, box=FACE)


def recognises(path: Path) -> bool:
    """Whether `path` holds the images under their published name."""
    return path.name.startswith(IMAGES) or _images(path) not in (None, path)


def _images(root: Path) -> Path | None:
    if root.name.startswith(IMAGES) and root.exists():
        return root
    found = (root / place / f"{IMAGES}{suffix}" for place in ("", "celeba") for suffix in ("", ".zip"))
    return next((place for place in found if place.exists()), None)


def _chosen(images: Path, split: str) -> frozenset[str]:
    places = [images / SPLITS, images.parent / SPLITS]
    file = next((place for place in places if place.is_file()), None)
    if file is None:
        raise InputError(f"{images.parent}: no {SPLITS}, which tells the splits; fetch it, or set data.split=all")
    rows = (line.split() for line in file.read_text(encoding="utf-8", errors="replace").splitlines())
    return frozenset(row[0] for row in rows if len(row) == 2 and row[1] == NUMBER[split])


def _download(root: Path) -> None:
    from torchvision.datasets import CelebA

    parent = root.parent if root.name == "celeba" else root
    try:
        CelebA(str(parent), download=True)
    except Exception as error:  # of the network, of a wrong hash, or of gdown missing
        raise InputError(f"--download: CelebA could not be fetched to {parent} ({error})") from None
