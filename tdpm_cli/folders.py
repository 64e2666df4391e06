"""Folders of pictures, in and out, for the verbs that use a model as an auto-encoder."""

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli import config as configuration
from tdpm_cli import presets
from tdpm_cli.assemble import read_data
from tdpm_cli.errors import InputError
from tdpm_cli.imaging.decoded import Decoded
from tdpm_cli.imaging.files import SUFFIXES, ImageFiles
from tdpm_cli.run.files import replacing, write_text, writing
from tdpm_cli.run.report import Meter

MANIFEST = "pictures.json"
ARRAYS = "x_T.npz"
SHEET = "sheet.png"
PLOT = ("error.png", "error.csv")


@dataclass(frozen=True)
class Pictures:
    """`raw` uint8 [n, C, H, W], where each came from, and its class by name where all have one that is `known`."""

    raw: Tensor
    names: list[str]
    labels: list[str] | None


def read(text: str, shape: Sequence[int], n: int | None, known: Sequence[str]) -> Pictures:
    """The first n (or all) pictures of a folder, a zip, one file or a preset's data, brought to `shape` [C, H, W].

    Raises InputError where there are none, for a file that cannot be decoded, and for a model of something else.
    """
    if len(shape) != 3:
        raise InputError(f"the model's data have shape {list(shape)}: they are no pictures")
    path = Path(text)
    data: Any
    if text in presets.preset_names() and not path.exists():
        data, config = read_data(configuration.from_dict(presets.read_preset(text)))
        if tuple(config.space().raw_shape) != tuple(shape):
            raise InputError(f"{text}: its data are {list(config.space().raw_shape)}, the model's {list(shape)}")
        names = [f"{text}[{k}]" for k in range(len(data))]
    else:
        data = Decoded(_files(path), shape, upscale=True)
        names = list(data.files.names)
    count = min(n or len(data), len(data))
    raw, given = data[range(count)]
    labels = [data.names[k] for k in given["label"].tolist()] if "label" in given and data.names else None
    fits = labels is not None and set(labels) <= set(known)
    return Pictures(raw, names[:count], labels if fits else None)


def _files(path: Path) -> ImageFiles:
    if path.is_file() and path.suffix.lower() in SUFFIXES:
        files = ImageFiles(path.parent, "IMAGES", classed=False)
        files.restrict(lambda name: name == path.name, path.name)
        return files
    return ImageFiles(path, "IMAGES")


def begin(out: Path, overwrite: bool) -> None:
    """Make the folder `out`. Refuses one with anything in it, unless it is of these verbs and may be overwritten."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: it is a file; name a folder")
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names and not (overwrite and MANIFEST in names):
        what = "give --overwrite, or name another folder" if MANIFEST in names else "name another folder"
        raise InputError(f"{out}: it is not empty; {what}")
    with writing(out):
        for name in names:
            if name in (MANIFEST, ARRAYS, SHEET, *PLOT) or re.fullmatch(r"\d{6}(-\d+)?\.png", name):
                (out / name).unlink()
        out.mkdir(parents=True, exist_ok=True)


def write_pictures(out: Path, raw: Tensor, names: Sequence[str]) -> None:
    """Write uint8 [n, C, H, W] as PNGs of these names."""
    for image, name in zip(raw.permute(0, 2, 3, 1).numpy(), names, strict=True):
        with replacing(out / name) as part:
            Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part, format="PNG")


def write_manifest(out: Path, about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> None:
    """Write what the pictures are, last: a folder with a manifest is whole."""
    write_text(out / MANIFEST, json.dumps({**about, "pictures": list(pictures)}, indent=1))


def read_manifest(folder: Path, verb: str) -> dict[str, Any]:
    """The manifest that `tdpm VERB` wrote. Raises InputError for a folder of anything else."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no {MANIFEST} that can be read ({error}); make one with `tdpm {verb}`") from None
    if not isinstance(found, dict) or found.get("verb") != verb:
        raise InputError(f"{path}: it is not of `tdpm {verb}`")
    return found


def words(option: str | None, labels: Sequence[str] | None, prompts: Sequence[str] | None) -> Sequence[str] | None:
    """What the user asked for, by the `option` that the model's condition knows. Raises InputError for the other."""
    for given, text in ((labels, "--labels"), (prompts, "--prompt")):
        if given and text != option:
            raise InputError(f"{text}: the model takes {option or 'no condition'}; leave {text} out")
    return labels or prompts


def by_pieces(label: str, n: int, batch: int, call: Callable[[slice], Tensor]) -> Tensor:
    """What `call` makes of 0..n-1, piece by piece, with progress."""
    found = []
    with Meter(label, n) as meter:
        for start in range(0, n, batch):
            found.append(call(slice(start, min(start + batch, n))))
            meter.advance(len(found[-1]))
    return torch.cat(found)


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [n] in dB of uint8 images: 10 log10(255² / mean squared error); inf where equal."""
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)


def among(labels: Sequence[str] | None, part: slice, one: bool = False) -> Any:
    """The labels of a piece, which go round through `labels`; or of `one` example."""
    if labels is None:
        return None
    chosen = [labels[k % len(labels)] for k in range(part.start, part.stop)]
    return chosen[0] if one else chosen
