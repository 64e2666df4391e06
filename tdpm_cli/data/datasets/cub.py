"""Caltech-UCSD Birds: 11,788 photographs of 200 species (Wah et al. 2011), ten captions each (Reed et al. 2016)."""

from collections.abc import Sequence
from pathlib import Path

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalPath
from tdpm_cli.data.captions import Uncaptioned, lines_of
from tdpm_cli.data.decode import image_suffixes
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import CaptionRules, ImageFiles, Selection
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_regular

__all__ = ["cub"]

CAPTION_FOLDERS = ("text_c10", "text")


def cub(
    path: Path | None, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = True,
    quarantine: ExternalPath | None = None, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """The images of `path`/images/SPECIES/, with the captions of `path`/text_c10/SPECIES/NAME.txt, one a line."""
    texts = next((path / name for name in CAPTION_FOLDERS if (path / name).is_dir()), None) if path else None
    if path is None or texts is None or not (path / "images").is_dir():
        raise InputError(
            f"CUB not found in {path}; unpack CUB_200_2011.tgz (https://www.vision.caltech.edu/datasets/cub_200_2011), "
            "put the folder text_c10 of captions (github.com/reedscott/cvpr2016) beside its folder images, and name "
            "the folder of both with --data"
        )
    captions = {}
    for image in sorted((path / "images").rglob("*")):
        name = image.relative_to(path / "images")
        if image.suffix.lower() in image_suffixes() and (texts / name.with_suffix(".txt")).is_file():
            text = read_regular(texts / name.with_suffix(".txt")).decode("utf-8", "replace")
            captions[name.as_posix()] = list(lines_of(text))
    files = ImageFiles(path / "images", selection=Selection(Path(quarantine) if quarantine else None),
                       captions=CaptionRules(captions, uncaptioned))  # fmt: skip
    return ImageDataset(files, raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Return whether `path` is a folder of images and of their captions."""
    return (path / "images").is_dir() and any((path / name).is_dir() for name in CAPTION_FOLDERS)
