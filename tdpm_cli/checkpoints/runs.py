"""Where a run keeps its checkpoints, and which run is the newest. Light: names alone, no weights."""

from pathlib import Path

from tdpm_cli.runtime.errors import InputError

CHECKPOINTS = "checkpoints"


def steps(run: Path) -> list[Path]:
    """The checkpoints of a run, oldest first, sound or not."""
    found = (path for path in (run / CHECKPOINTS).glob("*") if path.name.isdecimal())
    return sorted(found, key=lambda path: int(path.name))


def run_of(weights: Path) -> Path | None:
    """The run in whose checkpoint a file of weights lies; None for a file that lies elsewhere."""
    return weights.parents[2] if weights.parent.parent.name == CHECKPOINTS else None


def newest_run(outdir: Path = Path("runs")) -> Path:
    """The run below `outdir` whose checkpoint is the newest. Raises InputError where there is none."""
    runs = [run for run in sorted(outdir.glob("*")) if steps(run)]
    if not runs:
        raise InputError(
            f"no trained run under {outdir.resolve()}; train one with `tdpm train --preset digits`, "
            "or name a run or a weights file with --model"
        )
    return max(runs, key=lambda run: steps(run)[-1].stat().st_mtime)
