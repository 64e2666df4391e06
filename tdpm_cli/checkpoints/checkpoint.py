"""Save and find checkpoints. A checkpoint is complete or absent, whatever happens while it is written.

A checkpoint is the folder `checkpoints/000256000` (images seen) of a run; `format` describes its files. It is written
under another name, verified and renamed; only then is an older one removed.
"""

import itertools
import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from torch import Tensor

from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints import weights
from tdpm_cli.checkpoints.runs import CHECKPOINTS, is_checkpoint, list_checkpoints, require_checkpoint
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import WriteError, sync, writing

PART = ".part"  # added to the name of a folder that is being written or removed
DAMAGED = ".damaged"  # added to the name of a checkpoint that was set aside
BEST, SCORE = "best", "score.json"  # in a run, a run of the best checkpoint alone; in that checkpoint, its score

Verified = TypeVar("Verified")


@dataclass(frozen=True)
class Snapshot:
    """A copy of everything that the next step depends on. Training may continue while the copy is written."""

    seen: int
    weights: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]  # tensors and header of each file
    optimizers: Mapping[str, formats.StateDict]
    state: formats.TrainingState


def newest(run: Path) -> Path | None:
    """Return the newest sound checkpoint of a run, and report those that are newer.

    Returns None for a run without checkpoints. Raises InputError if none is sound.
    """
    verified = _newest(run, formats.verify)
    return verified[0] if verified else None


def _newest(run: Path, verify: Callable[[Path], Verified]) -> tuple[Path, Verified] | None:
    """Return the newest checkpoint that `verify` accepts, and what it returns."""
    saved = list_checkpoints(run)
    for folder in reversed(saved):
        try:
            return folder, verify(folder)
        except formats.Damaged as error:
            print_line(f"warning: skipped a checkpoint: {error}")
    if saved:
        raise InputError(
            f"{run}: none of its {len(saved)} checkpoints can be loaded; start another run with --resume never, or "
            f"move {run / CHECKPOINTS} away to start this run again"
        )
    return None


def newest_weights(source: Path) -> Path:
    """Return the first EMA file of a checkpoint, or of a run's newest sound checkpoint.

    Raises InputError if there is none.
    """
    return newest_weights_and_hash(source)[0]


def newest_weights_and_hash(source: Path) -> tuple[Path, str]:
    """Return the file of `newest_weights` and its SHA-256, which verifies it. Raises as `newest_weights` does."""
    if is_checkpoint(source):
        return _first_ema(source)
    verified = _newest(source, _first_ema)
    if verified is None:
        require_checkpoint(source)
        raise InputError(f"{source}: found neither a checkpoint nor a weights file; name a run, a checkpoint or a file")
    return verified[1]


def _first_ema(folder: Path) -> tuple[Path, str]:
    formats.verify(folder, formats.STATE)
    name = f"ema-{formats.read_state(folder)['ema'][0]}.safetensors"
    return folder / name, formats.verify(folder, name)[name]


def set_aside(run: Path, newer_than: Path) -> None:
    """Rename the damaged checkpoints after `newer_than`, so that they are ignored but can still be examined."""
    for folder in list_checkpoints(run):
        if int(folder.name) > int(newer_than.name):
            _set_aside(folder)


def _set_aside(folder: Path) -> None:
    names = (f"{folder.name}{DAMAGED}{f'-{k}' if k > 1 else ''}" for k in itertools.count(1))
    folder.rename(next(path for path in map(folder.with_name, names) if not os.path.lexists(path)))


def best(run: Path) -> tuple[str, float] | None:
    """Return the name and value of the best checkpoint's score; None if there is none."""
    for folder in reversed(list_checkpoints(run / BEST)):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            score = json.loads((folder / SCORE).read_text())
            return str(score["name"]), float(score["value"])
    return None


def keep_best(run: Path, folder: Path, name: str, value: float) -> bool:
    """Copy a checkpoint to `best` if its score is lower than the one there, or has another name; return whether.

    Files are linked, not copied, where the file system can. `best` is a run of that one checkpoint, so it loads as any
    run does. Raises WriteError if the disk fails; the checkpoint that was there is intact then.
    """
    before = best(run)
    if before is not None and before[0] == name and before[1] <= value:
        return False
    final = run / BEST / CHECKPOINTS / folder.name
    part = final.with_name(final.name + PART)
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in (final, part):
            shutil.rmtree(stale, ignore_errors=True)
        shutil.copytree(folder, part, copy_function=_link)
        (part / SCORE).write_text(json.dumps({"name": name, "value": value}))
        for path in (part / SCORE, part):
            sync(path)
        part.rename(final)
        sync(final.parent)
        for other in list_checkpoints(run / BEST):
            if other != final:
                shutil.rmtree(other)
    return True


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:  # a file system without links
        shutil.copy(source, target)
        sync(Path(target))


def save(run: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write and verify a checkpoint, then remove the oldest ones beyond `keep`.

    Raises WriteError if the disk fails, and InputError for weights that are not finite; nothing has changed then.
    """
    _require_finite(snapshot)
    final = run / CHECKPOINTS / f"{snapshot.seen:09d}"
    part = final.with_name(final.name + PART)
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for stale in final.parent.glob(f"*{PART}"):
            if stale.name.removesuffix(PART).isdecimal():
                shutil.rmtree(stale, ignore_errors=True)
        part.mkdir()
        for name, (tensors, header) in snapshot.weights.items():
            weights.write_tensors(part / f"{name}.safetensors", tensors, header)
        formats.write_state(part, snapshot.state, snapshot.optimizers)
        formats.seal(part)
        if os.path.lexists(final):  # damaged, or no checkpoint: training would have continued from it otherwise
            _set_aside(final)
        part.rename(final)
        for folder in (final.parent, run, run.parent):
            sync(folder)
        formats.verify(final)
    except (OSError, WriteError, formats.Damaged) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise WriteError(f"{final}: the checkpoint could not be written ({error}); older ones are intact") from None
    for old in list_checkpoints(run)[:-keep]:
        with suppress(OSError):  # the next save removes it
            shutil.rmtree(old.rename(old.with_name(old.name + PART)))
    return final


def _require_finite(snapshot: Snapshot) -> None:
    bad = [f"{file}: {name}" for file, (tensors, _) in snapshot.weights.items()
           for name, tensor in tensors.items() if not tensor.isfinite().all()]  # fmt: skip
    if bad:
        raise InputError(
            f"{len(bad)} weights are infinite or NaN after {snapshot.seen / 1000:g} kimg, such as {bad[0]}; no "
            "checkpoint was written, and older ones are intact. Lower train.denoiser_lr or train.discriminator_lr"
        )
