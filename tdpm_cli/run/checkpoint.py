"""Checkpoints: written aside and renamed into place, so that a crash leaves the old one whole.

A checkpoint is a folder `checkpoints/000256000` (images seen) of a run, holding

    ema-500000.safetensors     averaged weights, one file for each half-life; config in the header
    model.safetensors          the weights being trained
    discriminator.safetensors
    optimizers.pt              states of all optimizers
    state.json                 images seen, steps
"""

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from tdpm_cli.errors import InputError
from tdpm_cli.run.files import replacing


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
    for name in own.keys() ^ tensors.keys():
        side = "lacks" if name in own else "has, and the model does not,"
        raise InputError(f"{source}: it {side} {name!r}: weights of another model")
    for name, tensor in own.items():
        if tensor.shape != tensors[name].shape:
            raise InputError(
                f"{source}: {name} has shape {list(tensors[name].shape)}, not {list(tensor.shape)}: "
                "weights of another model"
            )
        tensor.copy_(tensors[name])


def write_weights(path: Path, module: nn.Module, header: Mapping[str, str]) -> None:
    """Write weights and header as safetensors, whole or not at all."""
    tensors = {name: tensor.contiguous() for name, tensor in state(module).items()}
    with replacing(path) as part:
        try:
            save_file(tensors, part, dict(header))
        except SafetensorError as error:  # how the library reports a full disk
            raise OSError(str(error)) from None
        sync(part)


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Read tensors and header; executes nothing. Raises InputError for a missing or damaged file."""
    if not path.is_file():
        raise InputError(f"{path}: no such run or weights file")
    try:
        with safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except SafetensorError as error:
        raise InputError(f"{path}: not a safetensors file, or a damaged one ({error})") from None


def sha256(path: Path) -> str:
    """Hash of a file's content."""
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def steps(run: Path) -> list[Path]:
    """Complete checkpoints of a run, oldest first."""
    found = (path for path in (run / "checkpoints").glob("*") if path.name.isdecimal())
    return sorted(path for path in found if (path / "state.json").is_file())


def newest_weights(source: Path) -> Path:
    """The first EMA file of a checkpoint, or of a run's newest. Raises InputError where there is none."""
    folder = source
    if not (source / "state.json").is_file():
        if not (saved := steps(source)):
            raise InputError(f"{source}: neither a run with a checkpoint nor a weights file")
        folder = saved[-1]
    first = json.loads((folder / "state.json").read_text())["ema"][0]
    return folder / f"ema-{first}.safetensors"


def position(folder: Path) -> tuple[int, int]:
    """Images seen and steps done at a checkpoint."""
    content = json.loads((folder / "state.json").read_text())
    return int(content["seen"]), int(content["step"])


def save(run: Path, seen: int, write: Callable[[Path], Mapping[str, Any]], keep: int) -> Path:
    """Save a checkpoint: `write` fills a folder and returns the state; older ones beyond `keep` go last."""
    final = run / "checkpoints" / f"{seen:09d}"
    part = final.with_name(final.name + ".part")
    for left_behind in final.parent.glob("*.part"):
        shutil.rmtree(left_behind, ignore_errors=True)
    try:
        part.mkdir(parents=True)
        content = write(part)
        (part / "state.json").write_text(json.dumps(content, indent=1))
        for path in [*part.iterdir(), part]:
            sync(path)
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
        sync(final.parent)
    except (OSError, InputError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise InputError(f"{final}: the checkpoint could not be written ({error}); older ones are intact") from None
    for old in steps(run)[:-keep]:
        shutil.rmtree(old)
    return final


def sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
