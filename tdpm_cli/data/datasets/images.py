"""Images of a folder or a zip, labelled by `dataset.json` or by the folder they lie in."""

from collections.abc import Sequence
from pathlib import Path

from tdpm_cli.config.constants import Crop
from tdpm_cli.data.captions import Uncaptioned
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.runtime.errors import InputError

__all__ = ["images"]


def images(
    path: Path | None, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
    quarantine: str | None = None, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Every image below a folder or in a zip (class folders, or EDM's and StyleGAN's `dataset.json`).

    `quarantine` is a list of files to keep out, by default the one beside the data that `tdpm data verify` wrote.
    Where some images have captions, `uncaptioned` says what becomes of the others: fail, drop them, or an empty one.
    """
    if path is None:
        raise InputError("no images: give a folder or a zip with --data PATH")
    files = ImageFiles(path, quarantine=Path(quarantine) if quarantine else None, uncaptioned=uncaptioned)
    return ImageDataset(files, raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Whether `path` is a folder or a zip."""
    return path.is_dir() or path.suffix.lower() == ".zip"
