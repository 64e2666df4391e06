"""What lies in the folder of a checkpoint, in every format that there has been. The newest is the one written.

Format 2, this one:

    ema-500000.safetensors     averaged weights, one file for each half-life; config in the header
    model.safetensors          the weights being trained
    discriminator.safetensors
    optimizers.safetensors     the tensors of all optimizers, as <optimizer>/<number of the weight>/<name>
    state.json                 images seen, steps, skipped updates, the optimizers' settings, config and its hash
    manifest.json              the format, and size and SHA-256 of every other file; written last

Format 1 had no manifest, and its optimizers lay in a pickle, `optimizers.pt`, which is read as data alone.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.checkpoints import weights
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256, sync

FORMAT = 2
MANIFEST, STATE, OPTIMIZERS = "manifest.json", "state.json", "optimizers.safetensors"
OLD_OPTIMIZERS = "optimizers.pt"  # of format 1
LARGEST_TEXT = 64 << 20  # bytes of a file of text

States = Mapping[str, Mapping[str, Any]]  # the state_dict of each optimizer


class Damaged(InputError):
    """A checkpoint that is not what was written."""


def seal(folder: Path) -> None:
    """Write the manifest of all that lies in a folder, and wait until everything is on the disk."""
    files = {path.name: {"size": path.stat().st_size, "sha256": sha256(path)} for path in folder.iterdir()}
    _write(folder / MANIFEST, _text({"format": FORMAT, "files": files}))
    for path in [*folder.iterdir(), folder]:
        sync(path)


def verify(folder: Path, *names: str) -> None:
    """Raise Damaged, saying what is wrong, unless these files (without names: all) are what was written."""
    if not (folder / MANIFEST).is_file() and _format_1(folder):
        _verify_1(folder)
        return
    files = _manifest(folder)
    if unknown := sorted(set(names) - files.keys()):
        raise Damaged(f"{folder}: it never had {', '.join(unknown)}")
    for name in names or files:
        path, told = folder / name, files[name]
        if not path.is_file():
            raise Damaged(f"{folder}: {name} is missing")
        if (size := path.stat().st_size) != told["size"]:
            raise Damaged(f"{folder}: {name} has {size:,} bytes, not {told['size']:,}")
        if sha256(path) != told["sha256"]:
            raise Damaged(f"{folder}: {name} is not what was written (its SHA-256 is another)")
    _named_rightly(folder, state_of(folder)["seen"])


def write_state(folder: Path, state: Mapping[str, Any], optimizers: States) -> None:
    """Write `state.json` and the optimizers. Raises TypeError for an optimizer's state that is no tensor."""
    tensors = {
        f"{name}/{index}/{key}": value
        for name, whole in optimizers.items()
        for index, moments in whole["state"].items()
        for key, value in moments.items()
    }
    weights.write_tensors(folder / OPTIMIZERS, tensors, {})
    groups = {name: whole["param_groups"] for name, whole in optimizers.items()}
    _write(folder / STATE, _text({**state, "optimizers": groups}))


def state_of(folder: Path) -> dict[str, Any]:
    """`state.json`, as the newest format has it. Raises Damaged for what is none."""
    state = _json(folder, STATE)
    if "format" not in state:
        return state
    _, header = weights.read_header(folder / f"ema-{state['ema'][0]}.safetensors")
    return {**state, "skipped": {}, "config": json.loads(header["config"])}


def optimizers_of(folder: Path) -> dict[str, dict[str, Any]]:
    """The state_dict of every optimizer, on the CPU."""
    if not (folder / MANIFEST).is_file():
        found: dict[str, dict[str, Any]] = _unpickled(folder)
        return found
    tensors, _ = weights.read_weights(folder / OPTIMIZERS)
    states: dict[str, dict[str, Any]] = {
        name: {"state": {}, "param_groups": groups} for name, groups in state_of(folder)["optimizers"].items()
    }
    for path, value in tensors.items():
        name, index, key = path.split("/")
        states[name]["state"].setdefault(int(index), {})[key] = value
    return states


def _manifest(folder: Path) -> dict[str, dict[str, Any]]:
    content = _json(folder, MANIFEST)
    if isinstance(content.get("format"), int) and content["format"] > FORMAT:
        raise Damaged(
            f"{folder}: its format is {content['format']}, and this version of tdpm knows those up to {FORMAT}; "
            "install a newer one"
        )
    # One way to write it, so that no byte of it can change and go unnoticed.
    if content.get("format") != FORMAT or (folder / MANIFEST).read_bytes() != _text(content).encode():
        raise Damaged(f"{folder}: {MANIFEST} is not what was written")
    files: dict[str, dict[str, Any]] = content.get("files", {})
    try:
        sound = all({"size", "sha256"} == told.keys() and Path(name).name == name for name, told in files.items())
    except AttributeError:
        sound = False
    if not sound or STATE not in files:
        raise Damaged(f"{folder}: {MANIFEST} is not what was written")
    return files


def _json(folder: Path, name: str) -> dict[str, Any]:
    path = folder / name
    try:
        if path.stat().st_size > LARGEST_TEXT:
            raise Damaged(f"{folder}: {name} is larger than {LARGEST_TEXT:,} bytes")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{folder}: {name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{folder}: {name} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{folder}: {name} is not what was written")
    return content


def _text(content: Mapping[str, Any]) -> str:
    return json.dumps(content, indent=1)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")


def _format_1(folder: Path) -> bool:
    try:
        return _json(folder, STATE).get("format") == 1
    except Damaged:
        return False


def _verify_1(folder: Path) -> None:
    """What can be told without hashes: that nothing is missing, and that all of it can be read."""
    state = _json(folder, STATE)
    numbers = (state.get(key) for key in ("seen", "step"))
    if not all(isinstance(n, int) for n in numbers) or not isinstance(state.get("ema"), list) or not state["ema"]:
        raise Damaged(f"{folder}: {STATE} is not what was written")
    _named_rightly(folder, state["seen"])
    needed = ["model", *(f"ema-{half_life}" for half_life in state["ema"])]
    for name in [*needed, *(["discriminator"] if (folder / "discriminator.safetensors").exists() else [])]:
        try:
            tensors, header = weights.read_weights(folder / f"{name}.safetensors")
            json.loads(header["config"])
        except (InputError, ValueError, KeyError) as error:
            raise Damaged(f"{folder}: {name}.safetensors is damaged ({error})") from None
        if not all(bool(tensor.isfinite().all()) for tensor in tensors.values()):
            raise Damaged(f"{folder}: {name}.safetensors holds numbers that are not finite")
    _unpickled(folder)


def _named_rightly(folder: Path, seen: int) -> None:
    if folder.name.isdecimal() and int(folder.name) != seen:
        raise Damaged(f"{folder}: its state is of {seen:,} images seen: it has been renamed")


def _unpickled(folder: Path) -> Any:
    try:
        return torch.load(folder / OLD_OPTIMIZERS, map_location="cpu", weights_only=True)
    except Exception as error:  # of a zip, of a pickle, of what a pickle asks for
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise Damaged(f"{folder}: {OLD_OPTIMIZERS} is damaged ({reason})") from None
