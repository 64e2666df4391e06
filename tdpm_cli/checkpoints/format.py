"""The files of a checkpoint's folder, format 2: how they are written, read and verified.

ema-500000.safetensors     averaged weights, one file for each half-life, with the config in the header
model.safetensors          the weights being trained
discriminator.safetensors
optimizers.safetensors     the tensors of all optimizers, as <optimizer>/<index of the weight>/<name>
state.json                 images seen, steps, skipped updates, the optimizers' settings, the config and its hash
manifest.json              the format, and the size and SHA-256 of every other file; written last
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, TypedDict, cast

from annotated_types import MinLen
from pydantic import Field

from tdpm_cli.checkpoints import weights
from tdpm_cli.checkpoints.runs import MANIFEST, STATE
from tdpm_cli.config.types import Value
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256, sync
from tdpm_cli.runtime.records import Natural, Record, check_record

FORMAT = 2
OPTIMIZERS = "optimizers.safetensors"
MAX_JSON_BYTES = 64 << 20

StateDict = dict[str, Any]  # PyTorch's `Optimizer.state_dict()`: "state", by index of the weight, and "param_groups"


class TrainingState(TypedDict, total=False):
    """The content of `state.json`."""

    seen: int  # images
    step: int
    ema: list[int]  # half-lives, in images
    skipped: dict[str, int]  # updates that were not finite, by phase
    processes: int
    config: dict[str, Value]
    config_sha256: str
    optimizers: dict[str, list[dict[str, Value]]]  # their parameter groups


class State(Record):
    """The schema of `state.json`."""

    seen: Natural
    step: Natural = 0
    ema: Annotated[list[Natural], MinLen(1)]
    skipped: dict[str, Natural] = Field(default_factory=dict)
    processes: Natural = 1
    config: dict[str, Any] = Field(default_factory=dict)
    config_sha256: str = ""
    optimizers: dict[str, list[dict[str, Any]]] = Field(default_factory=dict)


class FileRecord(TypedDict):
    """What the manifest records of a file."""

    size: int
    sha256: str


class Damaged(InputError):
    """A checkpoint whose files are not those that were written, or that has another format."""


def seal(folder: Path) -> None:
    """Write the manifest of all files in a folder, and wait until everything is on the disk."""
    files = {path.name: FileRecord(size=path.stat().st_size, sha256=sha256(path)) for path in folder.iterdir()}
    _write(folder / MANIFEST, _to_json({"format": FORMAT, "files": files}))
    for path in [*folder.iterdir(), folder]:
        sync(path)


def verify(folder: Path, *names: str) -> dict[str, str]:
    """Return the SHA-256 of these files (by default of all) by name.

    Raises Damaged, naming the file, unless they are those that were written.
    """
    files = _read_manifest(folder)
    if unknown := sorted(set(names) - files.keys()):
        raise Damaged(f"{folder}: {', '.join(unknown)} is not in {MANIFEST}")
    for name in names or files:
        path, record = folder / name, files[name]
        if not path.is_file():
            raise Damaged(f"{folder}: {name} is missing")
        if (size := path.stat().st_size) != record["size"]:
            raise Damaged(f"{folder}: {name} has {size:,} bytes; expected {record['size']:,}")
        if sha256(path) != record["sha256"]:
            raise Damaged(f"{folder}: {name} has changed since it was written (its SHA-256 differs)")
    seen = read_state(folder)["seen"]
    if folder.name.isdecimal() and int(folder.name) != seen:
        raise Damaged(f"{folder}: the folder was renamed; its state has seen {seen:,} images")
    return {name: files[name]["sha256"] for name in names or files}


def write_state(folder: Path, state: TrainingState, optimizers: Mapping[str, StateDict]) -> None:
    """Write `state.json` and the optimizers. Raises TypeError for an optimizer whose state is not made of tensors."""
    tensors = {
        f"{name}/{index}/{key}": value
        for name, optimizer in optimizers.items()
        for index, moments in optimizer["state"].items()
        for key, value in moments.items()
    }
    weights.write_tensors(folder / OPTIMIZERS, tensors, {})
    groups = {name: optimizer["param_groups"] for name, optimizer in optimizers.items()}
    _write(folder / STATE, _to_json({**state, "optimizers": groups}))


def read_state(folder: Path) -> TrainingState:
    """Return `state.json`. Raises Damaged if it cannot be read."""
    content = _read_json(folder, STATE)
    try:
        check_record(content, State, str(folder / STATE), "it is not what tdpm wrote")
    except InputError as error:
        raise Damaged(str(error)) from None
    return cast(TrainingState, content)


def read_optimizers(folder: Path) -> dict[str, StateDict]:
    """Return the `state_dict` of every optimizer, on the CPU."""
    tensors, _ = weights.read_weights(folder / OPTIMIZERS)
    states: dict[str, StateDict] = {
        name: {"state": {}, "param_groups": groups} for name, groups in read_state(folder)["optimizers"].items()
    }
    for path, value in tensors.items():
        name, index, key = path.split("/")
        states[name]["state"].setdefault(int(index), {})[key] = value
    return states


def _read_manifest(folder: Path) -> dict[str, FileRecord]:
    if not (folder / MANIFEST).is_file() and (folder / STATE).is_file():
        _require_current(folder, _read_json(folder, STATE).get("format"))  # format 1 had no manifest
    content = _read_json(folder, MANIFEST)
    version = content.get("format")
    _require_current(folder, version)
    # Comparing with what tdpm would write notices a change of any byte, spaces included.
    if version != FORMAT or (folder / MANIFEST).read_bytes() != _to_json(content).encode():
        raise Damaged(f"{folder}: {MANIFEST} has changed since it was written")
    files = cast(dict[str, FileRecord], content.get("files", {}))
    try:
        sound = all({"size", "sha256"} == record.keys() and Path(name).name == name for name, record in files.items())
    except AttributeError:
        sound = False
    if not sound or STATE not in files:
        raise Damaged(f"{folder}: {MANIFEST} has changed since it was written")
    return files


def _require_current(folder: Path, version: object) -> None:
    """Raise Damaged for the number of another format; anything but a number is damage that the caller reports."""
    if isinstance(version, int) and version != FORMAT:
        newer, older = (
            "install a newer tdpm",
            "continue with the tdpm that wrote it, or train again with --resume never",
        )
        raise Damaged(
            f"{folder}: found checkpoint format {version}; this version reads format {FORMAT}: "
            + (newer if version > FORMAT else older)
        )


def _read_json(folder: Path, name: str) -> dict[str, object]:
    path = folder / name
    try:
        if (size := path.stat().st_size) > MAX_JSON_BYTES:
            raise Damaged(f"{folder}: {name} has {size:,} bytes; at most {MAX_JSON_BYTES:,} are accepted")
        content = json.loads(path.read_bytes())
    except FileNotFoundError:
        raise Damaged(f"{folder}: {name} is missing") from None
    except (OSError, ValueError, RecursionError) as error:
        raise Damaged(f"{folder}: {name} is damaged ({error})") from None
    if not isinstance(content, dict):
        raise Damaged(f"{folder}: {name} has changed since it was written")
    return content


def _to_json(content: Mapping[str, object]) -> str:
    return json.dumps(content, indent=1)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8")
