"""Weights in files: safetensors, which hold numbers and text, and nothing that could be executed."""

import re
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, sync

UNREADABLE = (SafetensorError, OSError, RuntimeError, MemoryError)  # the last two: more than can be mapped to memory


def state(module: nn.Module) -> dict[str, Tensor]:
    """Weights and buffers by name, each once: a tensor used in two places is stored under its first name."""
    found: dict[int, str] = {}
    whole = module.state_dict(keep_vars=True)
    for name, tensor in whole.items():
        found.setdefault(id(tensor), name)
    return {name: whole[name].detach() for name in found.values()}


def load_state(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the weights of those names. Raises InputError, naming `source`, unless all fit."""
    own = state(module)
    fits(own, {name: list(tensor.shape) for name, tensor in tensors.items()}, source)
    for name, tensor in own.items():
        distributed.fill(tensor, tensors[name])


def fits(own: Mapping[str, Tensor], shapes: Mapping[str, list[int]], source: str) -> None:
    """Raise InputError, naming `source` and the differences, unless it holds weights of these names and shapes."""
    differing = [f"it lacks {name}" for name in own if name not in shapes]
    differing += [f"it has {name}, and the model does not" for name in shapes if name not in own]
    differing += [
        f"{name} has shape {shapes[name]}, not {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in shapes and shapes[name] != list(tensor.shape)
    ]
    if differing:
        more = f"; and {len(differing) - 5:,} more" if len(differing) > 5 else ""
        raise InputError(f"{source}: weights of another model: {'; '.join(differing[:5])}{more}")


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors and header as safetensors, whole or not at all, and on the disk when this returns."""
    with replacing(path) as part:
        part.touch()
        mode = part.stat().st_mode
        try:
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, dict(header))
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from None
        part.chmod(mode)  # the library makes it for its owner alone
        sync(part)


def write_weights(path: Path, module: nn.Module, header: Mapping[str, str]) -> None:
    """Write a model's weights and a header as safetensors."""
    write_tensors(path, state(module), header)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and header; executes nothing. Raises InputError for a missing or damaged file."""
    if not path.is_file():
        raise InputError(f"{path}: no such run or weights file")
    try:
        with safe_open(path, framework="pt") as file:
            return {_current(name): file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except UNREADABLE as error:
        raise InputError(f"{path}: not a safetensors file that can be read ({error})") from None


def read_header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """The shapes of the tensors and the header, without reading one. Raises InputError as `read_weights` does."""
    if not path.is_file():
        raise InputError(f"{path}: no such run or weights file")
    try:
        with safe_open(path, framework="pt") as file:
            shapes = {_current(name): list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
            return shapes, file.metadata() or {}
    except UNREADABLE as error:
        raise InputError(f"{path}: not a safetensors file that can be read ({error})") from None


def _current(name: str) -> str:
    """Return the present name of a tensor in a weights file. tdpm 0.1.0 called the text encoder `reader`."""
    return re.sub(r"^denoiser\.reader\.", "denoiser.text_encoder.", name)
