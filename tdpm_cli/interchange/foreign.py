"""A diffusion model of another project, read: what it is, in the words of a preset, and its weights."""

import pickle
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from tdpm_cli.errors import InputError
from tdpm_cli.parts.backbones.unet import UNet

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
            return dict(load_file(path))
        except (SafetensorError, OSError) as error:
            raise InputError(f"--init: {path}: not a safetensors file, or a damaged one ({error})") from None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickles of another protocol, which then fail
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        first = str(error).splitlines()[0]
        raise InputError(
            f"--init: {path}: it holds more than tensors, and loading it could execute code, so it was not loaded "
            f"({first}). Save its state dict alone: torch.save(model.state_dict(), PATH), or as safetensors"
        ) from None
    except Exception as error:  # torch.load raises anything on damaged files
        raise InputError(f"--init: {path}: cannot be read as weights ({str(error).splitlines()[0]})") from None
    found = [part for part in (content if isinstance(content, list) else [content]) if _is_state(part)]
    if not found:
        raise InputError(f"--init: {path}: it holds no tensors by name; accepted: a state dict, or a list with one")
    return {str(name).removeprefix("module."): tensor for name, tensor in found[-1].items()}


def _is_state(part: object) -> bool:
    return isinstance(part, Mapping) and bool(part) and all(isinstance(value, Tensor) for value in part.values())


def require(tensors: Tensors, name: str, where: str, kind: str) -> Tensor:
    """A tensor that every file of that kind has."""
    if name not in tensors:
        some = ", ".join(list(tensors)[:3])
        raise InputError(f"{where}: no {name!r} in it, so it is no {kind}; it has {some}, …")
    return tensors[name]
