"""What importers share: the description of an imported model, and reading tensors without executing code."""

import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tdpm_cli.checkpoints.weights import read_weights
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import Json

Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class ImportedModel:
    """A denoiser of another project, as sections of a preset, and its weights.

    `backbone` holds the keys of our U-Net. `schedule` and `prediction` are None if the files do not contain them.
    `tensors_for(unet)` returns the weights by the names of that U-Net. `notes` are for the user.
    """

    backbone: Json
    channels: int  # of the images
    tensors_for: Callable[[UNet], Tensors]
    schedule: Json | None = None
    prediction: str | None = None
    classes: int | None = None
    size: int | None = None  # of the images, if the files contain it
    notes: list[str] = field(default_factory=list)


class Importer(Protocol):
    """The interface of an importer: a function that reads the U-Net at `path`, for images of that height.

    Raises InputError, naming the file and what it contains, for anything that has no equal in tdpm.
    """

    def __call__(self, path: Path, height: int) -> ImportedModel: ...


def read_tensors(path: Path) -> Tensors:
    """Read tensors by name from a safetensors file or a file of torch.save; execute no code.

    Of a list (ermongroup/DDIM's training checkpoints) return the last dict of tensors: the averaged weights. Drop the
    prefix "module.". Raises InputError for anything else.
    """
    if not path.is_file():
        raise InputError(f"--init: {path}: no such file")
    if path.suffix == ".safetensors":
        try:
            return read_weights(path)[0]
        except InputError as error:
            raise InputError(f"--init: {error}") from None
    try:
        _check_memory(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about pickles of another protocol, which fail next
            content = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise InputError(
            f"--init: {path}: the file contains more than tensors, which could execute code ({first_line(error)}); "
            "expected: tensors alone. Save the state dict: torch.save(model.state_dict(), PATH), or use safetensors"
        ) from None
    except InputError:
        raise
    except Exception as error:  # torch.load raises anything on damaged files
        raise InputError(f"--init: {path}: weights cannot be read ({first_line(error)})") from None
    states = [part for part in (content if isinstance(content, list) else [content]) if _is_state(part)]
    if not states:
        raise InputError(f"--init: {path}: no tensors by name; accepted: a state dict, or a list with one")
    return {str(name).removeprefix("module."): tensor for name, tensor in states[-1].items()}


def _check_memory(path: Path) -> None:
    """Raise InputError for a compressed file of torch.save, or one larger than the free memory."""
    if not zipfile.is_zipfile(path):  # torch before 1.6: uncompressed
        return
    with zipfile.ZipFile(path) as archive:
        entries = archive.infolist()
    if packed := [entry.filename for entry in entries if entry.compress_type != zipfile.ZIP_STORED]:
        raise InputError(
            f"--init: {path}: {packed[0]} in it is compressed; expected: a file that torch.save wrote, uncompressed"
        )
    if (size := sum(entry.file_size for entry in entries)) > (free := free_memory(torch.device("cpu"))):
        raise InputError(f"--init: {path}: {size:,} bytes of tensors, but only {free:,} bytes of memory are free")


def _is_state(part: object) -> bool:
    return isinstance(part, Mapping) and bool(part) and all(isinstance(value, Tensor) for value in part.values())


def require(tensors: Tensors, name: str, where: str, kind: str) -> Tensor:
    """Return a tensor that every file of that kind has. Raises InputError for a file without it."""
    if name not in tensors:
        first = ", ".join(list(tensors)[:3])
        raise InputError(f"{where}: the file contains {first}, …; expected: {name!r}, as in every {kind}")
    return tensors[name]
