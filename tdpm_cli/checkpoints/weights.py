"""Read and write weights as safetensors, which contain numbers and text and nothing that could be executed."""

import json
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, sync

UNREADABLE = (SafetensorError, OSError, RuntimeError, MemoryError)  # the last two: more than can be mapped to memory
LISTED_DIFFERENCES = 5
LENGTH_BYTES, METADATA = 8, "__metadata__"  # of the format: the length of the header, and the key of our entries


def tensors_of(module: nn.Module) -> dict[str, Tensor]:
    """Return weights and buffers by name, each once: a tensor with two names is returned under the first."""
    tensors = module.state_dict(keep_vars=True)
    first_names: dict[int, str] = {}
    for name, tensor in tensors.items():
        first_names.setdefault(id(tensor), name)
    return {name: tensors[name].detach() for name in first_names.values()}


def load_tensors(module: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the weights of those names. Raises InputError, naming `source`, unless all fit."""
    own = tensors_of(module)
    require_same(own, {name: list(tensor.shape) for name, tensor in tensors.items()}, source)
    for name, tensor in own.items():
        distributed.fill(tensor, tensors[name])


def require_same(own: Mapping[str, Tensor], shapes: Mapping[str, list[int]], source: str) -> None:
    """Raise InputError, naming `source` and the differences, unless it has weights of these names and shapes."""
    differences = [f"it lacks {name}" for name in own if name not in shapes]
    differences += [f"it has {name}, which the model does not have" for name in shapes if name not in own]
    differences += [
        f"{name} has shape {shapes[name]}; expected {list(tensor.shape)}"
        for name, tensor in own.items()
        if name in shapes and shapes[name] != list(tensor.shape)
    ]
    if differences:
        more = len(differences) - LISTED_DIFFERENCES
        listed = "; ".join(differences[:LISTED_DIFFERENCES]) + (f"; and {more:,} more" if more > 0 else "")
        raise InputError(f"{source}: these are the weights of another model: {listed}")


@contextmanager
def disk_errors() -> Iterator[None]:
    """Turn an error of safetensors, which reports a full disk so, into an OSError."""
    try:
        yield
    except SafetensorError as error:
        raise OSError(str(error)) from None


def write_tensors(path: Path, tensors: Mapping[str, Tensor], header: Mapping[str, str]) -> None:
    """Write tensors and a header, completely or not at all, and wait until they are on the disk."""
    with replacing(path) as part:
        mode = part.stat().st_mode
        with disk_errors():
            entries = dict(header) or None  # the library writes no valid file of neither tensors nor entries
            save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, part, entries)
        _sort_header(part)
        part.chmod(mode)  # the library lets only the owner read its files
        sync(part)


def _sort_header(path: Path) -> None:
    """Sort the entries of the header, so that equal weights make equal files: the library writes them in any order."""
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(LENGTH_BYTES), "little")
        header = json.loads(file.read(size))
        if METADATA in header:
            header[METADATA] = dict(sorted(header[METADATA].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        assert len(text) <= size, "the library writes no shorter JSON"
        file.seek(LENGTH_BYTES)
        file.write(text.ljust(size))  # spaces may follow the JSON


def write_weights(path: Path, module: nn.Module, header: Mapping[str, str]) -> None:
    """Write the weights of a module and a header."""
    write_tensors(path, tensors_of(module), header)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return tensors and header. Raises InputError for a missing or damaged file."""
    with _opened(path) as file:
        return {_current_name(name): file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


def read_header(path: Path) -> tuple[dict[str, list[int]], dict[str, str]]:
    """Return the shapes of the tensors and the header, without reading a tensor. Raises as `read_weights` does."""
    with _opened(path) as file:
        shapes = {_current_name(name): list(file.get_slice(name).get_shape()) for name in file.keys()}  # noqa: SIM118
        return shapes, file.metadata() or {}


def check_size(path: Path, build: Callable[[], nn.Module]) -> None:
    """Build a network that takes no memory, and compare it with a file of its weights before any memory is taken.

    Raises InputError for a network with more than twice as many weights as the file, or of more than the free memory:
    whoever loads it names the few that are missing.
    """
    shapes, _ = read_header(path)
    with limit_parameters(len(shapes), path), torch.device("meta"):
        parameters = list(build().parameters())
    needed, contained = sum(map(Tensor.numel, parameters)), sum(map(prod, shapes.values()))
    if needed > 2 * contained:
        raise InputError(f"{path}: weights of another model: {contained:,} numbers, but its config needs {needed:,}")
    require_memory(sum(parameter.nbytes for parameter in parameters), path, torch.device("cpu"))


def require_memory(needed: int, path: Path, device: torch.device) -> None:
    """Raise InputError, naming the file of weights, if they need more bytes than are free."""
    if needed > (free := free_memory(device)):
        raise InputError(
            f"{path}: its weights need {needed / 2**30:.3g} GiB of memory, but only {free / 2**30:.3g} GiB are free"
        )


@contextmanager
def limit_parameters(tensors: int, path: Path) -> Iterator[None]:
    """Raise InputError while building networks with far more weights than the file has."""
    remaining = 4 * tensors + 100  # a network may replace some while it is built

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal remaining
        remaining -= 1
        if remaining < 0:
            raise InputError(f"{path}: weights of another model: its config needs more than its {tensors}")

    hook = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def _opened(path: Path) -> Iterator[safe_open]:
    if not path.is_file():
        raise InputError(f"{path}: no run or weights file found")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except UNREADABLE as error:
        raise InputError(f"{path}: not a safetensors file, or damaged ({error})") from None


def _current_name(name: str) -> str:
    """Return the present name of a tensor: tdpm 0.1.0 called the text encoder `reader`."""
    return re.sub(r"^denoiser\.reader\.", "denoiser.text_encoder.", name)
