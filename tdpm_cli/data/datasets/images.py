"""Images in a folder or a zip, labelled by `dataset.json` or by the folder that contains them."""

from collections.abc import Sequence
from pathlib import Path

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalPath, PlainName
from tdpm_cli.data.captions import Uncaptioned
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import CaptionRules, ImageFiles, Selection
from tdpm_cli.runtime.errors import InputError

__all__ = ["images"]


def images(
    path: Path | None, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
    quarantine: ExternalPath | None = None, uncaptioned: Uncaptioned = "fail", split: PlainName | None = None,
) -> ImageDataset:  # fmt: skip
    """Every image below a folder or in a zip, with class folders, EDM's `dataset.json` or Hugging Face's metadata.

    Of folders such as train and test, the one for training is read; `split` names another one, or "all".

    `quarantine` is a list of files to leave out, by default the one that `tdpm data verify` wrote beside the data.
    Where some images have captions, `uncaptioned` states what to do with the others: fail, drop, or an empty caption.
    """
    if path is None:
        raise InputError("no images; name a folder or a zip with --data PATH")
    files = ImageFiles(path, selection=Selection(Path(quarantine) if quarantine else None, split),
                       captions=CaptionRules(uncaptioned=uncaptioned))  # fmt: skip
    notes = [f"read the split {files.split} of {', '.join(files.splits)} (see data.split)"] if files.splits else []
    return ImageDataset(files, raw_shape, crop=crop, upscale=upscale, notes=notes)


def recognises(path: Path) -> bool:
    """Return whether `path` is a folder or a zip."""
    return path.is_dir() or path.suffix.lower() == ".zip"
