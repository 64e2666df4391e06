"""A diffusion model of another project, read: what it is, in the words of a preset, and its weights."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.checkpoints.weights import read_weights
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import InputError

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Foreign:
    """`backbone` holds the keys of our U-Net; `schedule` and `prediction` are None where the files do not say.

    `carry(unet)` gives the tensors of that U-Net; `notes` are what a user should know.
    """

    backbone: dict[str, Any]
    channels: int  # of the images
    carry: Callable[[UNet], Tensors]
    schedule: dict[str, Any] | None = None
    prediction: str | None = None
    classes: int | None = None
    size: int | None = None  # of the images, where the files say
    notes: list[str] = field(default_factory=list)


def read_tensors(path: Path) -> Tensors:
    """Tensors by name, from safetensors or from a file of torch.save; executes nothing.

    Of a list (ermongroup/DDIM's training checkpoints) the last dict of tensors counts: the averaged weights. The
    prefix "module." falls away. Raises InputError for anything else.
    """
    if not path.is_file():
        raise InputError(f"--init: {path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return read_weights(path)[0]
        except InputError as error:
            raise InputError(f"--init: {error}") from None
    try:
        _fits_in_memory(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of another protocol, which then fail
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"--init: {path}: it holds more than tensors, and loading it could execute code, so it was not loaded "
            f"({first}). Save its state dict alone: torch.save(model.state_dict(), PATH), or as safetensors"
        ) from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises anything on damaged files
        raise InputError(f"--init: {path}: cannot be read as weights ({str(error).splitlines()[0]})") from None
    found = [part for part in (content if isinstance(content, list) else [content]) if _is_state(part)]
    if not found:
        raise InputError(f"--init: {path}: it holds no tensors by name; accepted: a state dict, or a list with one")
    return {str(name).removeprefix("module."): tensor for name, tensor in found[-1].items()}


def _fits_in_memory(path: Path) -> None:
    """Raise InputError for a file of torch.save that would unpack to more than is free, or is packed at all."""
    if not zipfile.is_zipfile(path):  # torch before 1.6: as large as its tensors
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise InputError(f"--init: {path}: {packed[0]} in it is compressed, and torch.save compresses nothing")
    if (size := sum(entry.file_size for entry in entries)) > (free := free_memory(torch.device("cpu"))):
        raise InputError(f"--init: {path}: {size:,} bytes, and {free:,} are free")


def _is_state(part: object) -> bool:
    return isinstance(part, Mapping) and bool(part) and all(isinstance(value, Tensor) for value in part.values())


def require(tensors: Tensors, name: str, where: str, kind: str) -> Tensor:
    """A tensor that every file of that kind has."""
    if name not in tensors:
        some = ", ".join(list(tensors)[:3])
        raise InputError(f"{where}: no {name!r} in it, so it is no {kind}; it has {some}, …")
    return tensors[name]
