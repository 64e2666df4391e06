"""The checkpoints of a run, and the newest run, by their names alone: imports no PyTorch."""

from pathlib import Path
from typing import TYPE_CHECKING

from tdpm_cli.runtime.errors import InputError

if TYPE_CHECKING:
    from tdpm_cli.config.schema import Config

CHECKPOINTS = "checkpoints"  # the folder of a run
CONFIG = "config.yaml"  # the file of a run with the config that it was begun with
MANIFEST, STATE = "manifest.json", "state.json"  # files of a checkpoint


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder is a checkpoint, damaged or not."""
    return (folder / STATE).is_file() or (folder / MANIFEST).is_file()


def list_checkpoints(run: Path) -> list[Path]:
    """Return the checkpoints of a run, oldest first, damaged ones included. Anything else among them is ignored."""
    named = (path for path in (run / CHECKPOINTS).glob("*") if path.name.isascii() and path.name.isdecimal())
    return sorted((path for path in named if is_checkpoint(path) or _is_empty(path)), key=lambda path: int(path.name))


def _is_empty(folder: Path) -> bool:
    """Return whether a folder, and no link to one, has lost all its files."""
    return folder.is_dir() and not folder.is_symlink() and not any(folder.iterdir())


def run_of(weights: Path) -> Path | None:
    """Return the run whose checkpoint holds a weights file; None for a file outside a run."""
    return weights.parents[2] if weights.parent.parent.name == CHECKPOINTS else None


def newest_run(outdir: Path = Path("runs")) -> Path:
    """Return the run below `outdir` with the newest checkpoint. Raises InputError if there is none."""
    runs = [run for run in sorted(outdir.glob("*")) if list_checkpoints(run)]
    if runs:
        return max(runs, key=lambda run: list_checkpoints(run)[-1].stat().st_mtime)
    for run in sorted(outdir.glob(f"*/{CONFIG}"), key=lambda path: path.stat().st_mtime, reverse=True):
        require_checkpoint(run.parent)
    raise InputError(
        f"no trained run found in {outdir.resolve()}; train one with `tdpm train --preset digits`, "
        "or name a run or a weights file with --model"
    )


def begun_config(run: Path) -> "Config | None":
    """Return the config that a run was begun with; None if it was not begun."""
    from tdpm_cli.config import load_stored_config, presets

    path = run / CONFIG
    if not path.is_file():
        return None
    return load_stored_config(presets.read_yaml(path.read_text(encoding="utf-8"), str(path)))


def require_checkpoint(run: Path) -> None:
    """Raise InputError, with the number of images after which the first is due, for a run without a checkpoint."""
    if not list_checkpoints(run) and (config := begun_config(run)) is not None:
        due = min(config.train.snapshot, config.train.duration)
        raise InputError(
            f"{run}: no checkpoint yet; the first is due after {due:,} images (train.snapshot). Repeat the command then"
        )
