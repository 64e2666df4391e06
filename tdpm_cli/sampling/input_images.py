"""The images and conditions that `tdpm encode`, `edit`, `interpolate` and `reconstruct` start from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from torch import Tensor

from tdpm_cli.config import load_config, presets
from tdpm_cli.data.dataset import Examples
from tdpm_cli.data.decode import image_suffixes
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import name_bytes
from tdpm_cli.sampling.build import build_space, open_dataset
from tdpm_cli.sampling.conditions import check_option
from tdpm_cli.sampling.model import Model
from tdpm_cli.sampling.options import ConditionedOptions


@dataclass(frozen=True)
class InputImages:
    """`raw` uint8 [n, C, H, W], their names, and their labels if the model has a class for each."""

    raw: Tensor
    names: list[str]
    labels: list[str] | None

    def sha256(self) -> str:
        """Return the SHA-256 of pixels and names."""
        return sha256_of(self.raw, self.names)


def read_images(source: str, model: Model, n: int | None) -> InputImages:
    """Read the first n (or all) images of a folder, a zip, a file or a preset's data, in the size of the model's data.

    Raises InputError if there are none, for a file that cannot be decoded, and for a model of other data than images.
    """
    shape = tuple(model.space.raw_shape)
    if len(shape) != 3:
        raise InputError(f"the model's data have shape {list(shape)}; expected images [C, H, W]")
    data, names, classes = _open(source, shape)
    count = min(n or len(data), len(data))
    raw, raw_condition = data[range(count)]
    labels = None
    if "label" in raw_condition and classes:
        labels = [classes[k] for k in raw_condition["label"].tolist()]
    known = labels is not None and set(labels) <= set(_class_names(model))
    return InputImages(raw, names[:count], labels if known else None)


def _open(source: str, shape: tuple[int, ...]) -> tuple[Examples, list[str], Sequence[str]]:
    """Return the images of a source, their names, and the names of their classes."""
    path = Path(source)
    if source in presets.preset_names() and not path.exists():
        data, config = open_dataset(load_config(source))
        if (raw_shape := tuple(build_space(config).raw_shape)) != shape:
            raise InputError(f"{source}: its data have shape {list(raw_shape)}; the model expects {list(shape)}")
        return data, [f"{source}[{k}]" for k in range(len(data))], data.class_names
    images = ImageDataset(_files(path), shape, upscale=True)
    return images, list(images.files.names), images.class_names


def _files(path: Path) -> ImageFiles:
    if path.is_file() and path.suffix.lower() in image_suffixes():
        files = ImageFiles(path.parent, "IMAGES", classed=False)
        files.restrict(lambda name: name == path.name, path.name)
        return files
    return ImageFiles(path, "IMAGES")


def _class_names(model: Model) -> list[str]:
    return list(cast(list[str], model.config.condition.options.get("names") or []))


def choose_labels(
    model: Model, options: ConditionedOptions, default: Sequence[str] | None = None
) -> Sequence[str] | None:
    """Return the labels or prompts of the options, or `default`.

    Raises InputError for an option that the model does not take, and for labels that it does not know.
    """
    check_option(model.condition, options)
    chosen = options.condition or default
    model.cond(1, chosen)
    return chosen


def labels_of(labels: Sequence[str] | None, part: slice) -> list[str] | None:
    """Return the labels of some examples; all examples repeat `labels` cyclically."""
    return None if labels is None else [labels[k % len(labels)] for k in range(part.start, part.stop)]


def sha256_of(tensor: Tensor, names: Sequence[str] = ()) -> str:
    """Return the SHA-256 of a tensor and of names."""
    digest = hashlib.sha256(tensor.contiguous().numpy().tobytes())
    digest.update(name_bytes("\n".join(names)))
    return digest.hexdigest()


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Return the peak signal-to-noise ratio [n] in dB of uint8 images; inf if they are equal.

    It is 10 log10(255² / mean squared error).
    """
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)
