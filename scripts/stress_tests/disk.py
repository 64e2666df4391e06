"""A full disk for every command that writes: status 2, and no file that is half written."""

from pathlib import Path

from scripts.stress_tests.limits import full_disk
from scripts.stress_tests.processes import Outcome, quiet
from scripts.stress_tests.verbs import command_lines, complete_place, new_place, run_in, written

FIXED = {".png", ".npz", ".npy", ".safetensors", ".zip"}  # files that are the same whenever they are complete


def disks(n: int, folder: Path) -> Outcome:
    """Run every command n times, on disks that are full after more and more bytes."""
    quiet()
    failures = list[str]()
    rejected = trials = repeated = 0
    lines = command_lines(folder)
    for name, command in lines.items():
        place = complete_place(command, folder)
        complete = {path: (place / path).read_bytes() for path in written(place)}
        largest = max(map(len, complete.values()))
        for k in range(n):
            limit, trial = largest * k // n, new_place(folder / "trial")
            with full_disk(limit):
                status, output = run_in(trial, command, folder / "log")
            trials, rejected = trials + 1, rejected + (status == 2)
            what = f"{name}, at most {limit} bytes a file"
            if status not in (0, 2) or "Traceback" in output or "defect" in output:
                failures.append(f"{what}: status {status}: {output[-400:]}")
            failures += [f"{what}: {path} is half written" for path in _half_written(trial, complete)]
            status, output = run_in(trial, command, folder / "log")
            if status != 0:
                failures.append(f"{what}, then repeated: status {status}: {output[-400:]}")
            elif written(trial) == list(complete):
                repeated += 1
            else:
                failures.append(f"{what}, then repeated: found {written(trial)}, expected {list(complete)}")
    return Outcome(
        "A full disk ends every command with status 2, and leaves no file that is half written; the command can be "
        "repeated.",
        f"{trials} runs of {len(lines)} commands, in which files may grow to a part of the largest only",
        f"{rejected} with status 2; {repeated} complete when repeated with space; {len(failures)} half written, unable "
        "to continue, or with another status",
        failures,
    )


def _half_written(place: Path, complete: dict[str, bytes]) -> list[str]:
    """Return the files of a place that are neither complete nor pieces from which the command continues."""
    fixed = [path for path in written(place) if Path(path).suffix in FIXED and path in complete]
    return [path for path in fixed if (place / path).read_bytes() != complete[path]]
