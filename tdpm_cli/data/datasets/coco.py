"""COCO's captions: photographs with five captions each (Lin et al. 2014; Chen et al. 2015), as published."""

import json
from collections.abc import Sequence
from pathlib import Path

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalPath, PlainName
from tdpm_cli.data.captions import Uncaptioned
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import CaptionRules, ImageFiles, Selection
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_regular

__all__ = ["coco"]

MAX_ANNOTATION_BYTES = 1 << 30  # of the file of captions, which has 92 MB for train2017


def coco(
    path: Path | None, raw_shape: Sequence[int] | None, *, split: PlainName = "train2017", crop: Crop = "centre",
    upscale: bool = True, quarantine: ExternalPath | None = None, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """The images of `path`/`split`, with the captions of `path`/annotations/captions_`split`.json."""
    if path is None or not _annotations(path, split).is_file() or not (path / split).is_dir():
        raise InputError(
            f"COCO not found in {path}; download {split}.zip and annotations_trainval2017.zip from "
            f"https://cocodataset.org, unpack both into one folder, with {split}/ and annotations/, and name it with "
            "--data"
        )
    try:
        content = json.loads(read_regular(_annotations(path, split), MAX_ANNOTATION_BYTES))
        names = {image["id"]: image["file_name"] for image in content["images"]}
        captions: dict[str, list[str]] = {}
        for annotation in content["annotations"]:
            captions.setdefault(names[annotation["image_id"]], []).append(" ".join(annotation["caption"].split()))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise InputError(f"{_annotations(path, split)}: not COCO's captions ({error!r}); download it again") from None
    files = ImageFiles(path / split, selection=Selection(Path(quarantine) if quarantine else None), classed=False,
                       captions=CaptionRules(captions, uncaptioned))  # fmt: skip
    return ImageDataset(files, raw_shape, crop=crop, upscale=upscale)


def recognises(path: Path) -> bool:
    """Return whether `path` is a folder with COCO's annotations."""
    return (path / "annotations").is_dir() and any((path / "annotations").glob("captions_*.json"))


def _annotations(path: Path, split: str) -> Path:
    return path / "annotations" / f"captions_{split}.json"
