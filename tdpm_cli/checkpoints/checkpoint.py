"""Checkpoints: written aside and renamed into place, verified before an older one goes.

A checkpoint is a folder `checkpoints/000256000` (images seen) of a run; `formats` tells what lies in it. Whatever
happens at whatever instant, the ones that were there before are whole.
"""

import json
import os
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints import weights
from tdpm_cli.checkpoints.runs import CHECKPOINTS, steps
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import WriteError, sync, writing

ASIDE = ".damaged"  # added to the name of a checkpoint that was found so
BEST, SCORE = "best", "score.json"  # in a run: a run of the best checkpoint alone; and in that one, what it scored


@dataclass(frozen=True)
class Snapshot:
    """All that the next step depends on, in memory of its own: training may go on while it is written."""

    seen: int
    weights: Mapping[str, tuple[Mapping[str, Tensor], Mapping[str, str]]]  # tensors and header of each file
    optimizers: formats.States
    state: Mapping[str, Any]


def is_checkpoint(folder: Path) -> bool:
    """Whether a folder is a checkpoint, sound or not."""
    return (folder / formats.STATE).is_file() or (folder / formats.MANIFEST).is_file()


def newest(run: Path, check: Callable[[Path], object] = formats.verify) -> Path | None:
    """The newest checkpoint of a run that passes `check`; the damaged ones passed over are named.

    None where the run has none at all. Raises InputError where all are damaged.
    """
    saved = steps(run)
    for folder in reversed(saved):
        try:
            check(folder)
            return folder
        except formats.Damaged as error:
            say(f"warning: skipped a checkpoint that is damaged: {error}")
    if saved:
        raise InputError(
            f"{run}: none of its {len(saved)} checkpoints is sound; begin another run with --resume never, or move "
            f"{run / CHECKPOINTS} away to begin this one again"
        )
    return None


def newest_weights(source: Path) -> Path:
    """The first EMA file of a checkpoint, or of a run's newest that is sound. Raises InputError where there is none."""

    def first(folder: Path) -> Path:
        formats.verify(folder, formats.STATE)
        name = f"ema-{formats.state_of(folder)['ema'][0]}.safetensors"
        formats.verify(folder, name)
        return folder / name

    if is_checkpoint(source):
        return first(source)
    found = newest(source, first)
    if found is None:
        raise InputError(f"{source}: neither a run with a checkpoint nor a weights file")
    return first(found)


def set_aside(run: Path, newer_than: Path) -> None:
    """Rename the checkpoints that were passed over, so that they count no more, and stay to be looked at."""
    for folder in steps(run):
        if int(folder.name) > int(newer_than.name):
            _set_aside(folder)


def _set_aside(folder: Path) -> None:
    aside = folder.with_name(folder.name + ASIDE)
    shutil.rmtree(aside, ignore_errors=True)
    folder.rename(aside)


def best(run: Path) -> tuple[str, float] | None:
    """What the checkpoint that is kept as the best scored: the score's name and value. None where there is none."""
    for folder in reversed(steps(run / BEST)):
        with suppress(OSError, ValueError, KeyError, TypeError, RecursionError):
            told = json.loads((folder / SCORE).read_text())
            return str(told["name"]), float(told["value"])
    return None


def keep_best(run: Path, folder: Path, name: str, value: float) -> bool:
    """Keep a checkpoint apart in `best` if it scored lower than the one there, or under another name; return whether.

    Its files are linked, not copied, where the file system can. `best` is a run of that one checkpoint: what loads a
    run loads it. Raises WriteError where the disk fails; the one before is intact then.
    """
    before = best(run)
    if before is not None and before[0] == name and before[1] <= value:
        return False
    final = run / BEST / CHECKPOINTS / folder.name
    part = final.with_name(final.name + ".part")
    with writing(final):
        final.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in (final, part):
            shutil.rmtree(left_behind, ignore_errors=True)
        shutil.copytree(folder, part, copy_function=_link)
        (part / SCORE).write_text(json.dumps({"name": name, "value": value}))
        for path in (part / SCORE, part):
            sync(path)
        part.rename(final)
        sync(final.parent)
        for other in steps(run / BEST):
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
    """Write a checkpoint, verify it, and only then remove the older ones beyond `keep`.

    Raises WriteError where the disk fails, and InputError for weights that are not finite; nothing has changed then.
    """
    final = run / CHECKPOINTS / f"{snapshot.seen:09d}"
    bad = [f"{file}: {name}" for file, (tensors, _) in snapshot.weights.items()
           for name, tensor in tensors.items() if not tensor.isfinite().all()]  # fmt: skip
    if bad:
        raise InputError(
            f"weights are infinite or NaN by {snapshot.seen / 1000:g} kimg ({bad[0]}; {len(bad)} in all), so no "
            f"checkpoint was written; older ones are intact. Lower train.denoiser_lr or train.discriminator_lr"
        )
    part = final.with_name(final.name + ".part")
    try:
        final.parent.mkdir(parents=True, exist_ok=True)
        for left_behind in final.parent.glob("*.part"):
            shutil.rmtree(left_behind, ignore_errors=True)
        part.mkdir()
        for name, (tensors, header) in snapshot.weights.items():
            weights.write_tensors(part / f"{name}.safetensors", tensors, header)
        formats.write_state(part, snapshot.state, snapshot.optimizers)
        formats.seal(part)
        if final.exists():  # one that was damaged, or it would have been continued from
            _set_aside(final)
        part.rename(final)
        for folder in (final.parent, run, run.parent):
            sync(folder)
        formats.verify(final)
    except (OSError, WriteError, formats.Damaged) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise WriteError(f"{final}: the checkpoint could not be written ({error}); older ones are intact") from None
    for old in steps(run)[:-keep]:
        with suppress(OSError):  # what stays goes next time
            going = old.rename(old.with_name(old.name + ".part"))
            shutil.rmtree(going)
    return final
