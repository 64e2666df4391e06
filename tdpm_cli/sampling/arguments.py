"""Arguments of the Python API: checked, converted, and named in messages as Python names them."""

import os
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.errors import InputError, first_line

LARGEST = 2**63  # that a seed and an index must be below
ARGUMENTS = {"model": "source", "prompt": "labels", "prompts": "labels"}  # of options with another name


@contextmanager
def argument_names() -> Iterator[None]:
    """Name arguments instead of the command line's options in the message of an InputError."""
    try:
        yield
    except InputError as error:
        message = re.sub(r"(?<![\w-])--([a-z][a-z-]*)", lambda match: _argument(match[1]), str(error))
        raise InputError(message) from None


def _argument(option: str) -> str:
    return ARGUMENTS.get(option, option.replace("-", "_"))


def integer_of(name: str, value: object, least: int) -> int:
    """Return a whole number of any type. Raises InputError, naming the argument, for others and those below `least`."""
    if isinstance(value, bool | np.bool_) or not hasattr(value, "__index__"):
        number = None
    else:
        try:
            number = int(value.__index__())
        except TypeError:  # an array or a tensor of several numbers
            number = None
    if number is None or not least <= number < LARGEST:
        raise InputError(f"{name} is {value!r}: it must be a whole number of at least {least}")
    return number


def tensor_of(name: str, value: object) -> Tensor:
    """Return a tensor or a NumPy array as a tensor on the CPU. Raises InputError, naming the argument, for others."""
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.ndarray):
        try:
            return torch.from_numpy(value.copy())
        except TypeError:
            raise InputError(f"{name} is an array of {value.dtype}; expected numbers") from None
    raise InputError(f"{name} is {type(value).__name__}; expected a tensor or a NumPy array")


def examples_of(name: str, value: object, shape: Sequence[int]) -> Tensor:
    """Return examples of this raw shape: images uint8 [n, C, H, W], or points float32 [n, dim].

    Raises InputError, naming the argument, for another shape, for pixels that are not uint8, and for points that are
    not finite.
    """
    raw = tensor_of(name, value)
    if raw.ndim != len(shape) + 1 or tuple(raw.shape[1:]) != tuple(shape) or not len(raw):
        raise InputError(f"{name} have shape {list(raw.shape)}; the model expects [n, {', '.join(map(str, shape))}]")
    if len(shape) == 3:
        if raw.dtype != torch.uint8:
            raise InputError(f"{name} have the type {raw.dtype}; expected pixels of torch.uint8 from 0 to 255. Convert "
                             "numbers from 0 to 1 with (images * 255).round().to(torch.uint8)")  # fmt: skip
        return raw
    return _finite(name, raw)


def noise_of(name: str, value: object, shape: Sequence[int]) -> Tensor:
    """Return noisy data float32 [n, *shape]. Raises InputError for another shape, and for what is not finite."""
    noisy = tensor_of(name, value)
    if noisy.ndim != len(shape) + 1 or tuple(noisy.shape[1:]) != tuple(shape) or not len(noisy):
        raise InputError(f"{name} has shape {list(noisy.shape)}; the model expects [n, {', '.join(map(str, shape))}]")
    return _finite(name, noisy)


def _finite(name: str, values: Tensor) -> Tensor:
    if values.is_complex() or values.dtype == torch.bool or not bool(values.isfinite().all()):
        raise InputError(f"{name} has values that are not finite real numbers, of type {values.dtype}")
    return values.float()


def labels_of(labels: object) -> list[str] | None:
    """Return labels or prompts as texts: one or a sequence of them. Raises InputError for an empty sequence."""
    if labels is None:
        return None
    if isinstance(labels, Tensor | np.ndarray):
        labels = labels.tolist()
    listed = list(labels) if isinstance(labels, Sequence) and not isinstance(labels, str) else [labels]
    if not listed:
        raise InputError("labels is empty; name at least one, or leave it out")
    return [str(label) for label in listed]


def device_of(device: object) -> torch.device:
    """Return a device that works; for None the GPU if there is one. Raises InputError for any other."""
    if device is None:
        return devices.device()
    try:
        chosen = torch.device(device)  # type: ignore[call-overload]
        if chosen.type == "meta":
            raise ValueError("it holds no numbers")
        torch.empty(1, device=chosen)
    except Exception as error:  # whatever a missing backend raises
        raise InputError(
            f"device is {str(device)!r}, unusable here ({first_line(error)}); expected cpu, or a GPU that PyTorch "
            "supports, such as cuda"
        ) from None
    return chosen


def path_of(source: object) -> Path | None:
    """Return a path. Raises InputError for what is neither a text nor a path."""
    if source is None:
        return None
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"source is {type(source).__name__}; expected the path of a run, a checkpoint or a file")
    return Path(source)
