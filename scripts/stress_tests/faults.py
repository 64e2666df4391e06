"""Failures of the disk, and kills, at every call that changes the disk while a checkpoint is saved."""

import ctypes
import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from scripts.stress_tests.processes import POINTS, Outcome, quiet, start, status_of
from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.config import load_config
from tdpm_cli.sampling.build import build
from tdpm_cli.training.state import TrainerState

COUNT, FAIL, KILL = range(3)
ERRORS = {"ENOSPC": errno.ENOSPC, "EIO": errno.EIO, "EDQUOT": errno.EDQUOT, "EROFS": errno.EROFS}


def faults(n: int, folder: Path) -> Outcome:
    """Compile faults.c, and fail at most n calls in a process that preloads it."""
    promise = "A disk error or a crash at any system call during saving leaves the older checkpoint."
    test = "failure of each `write`, `rename`, `fsync`, `open`, `mkdir`, `unlink`, `chmod` while a checkpoint is saved"
    library = folder / "faults.so"
    source = Path(__file__).with_suffix(".c")
    built = subprocess.run(
        [os.environ.get("CC", "cc"), "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"],
        capture_output=True, text=True,
    )  # fmt: skip
    if built.returncode:
        return Outcome(promise, test, "not run", [f"{source.name} does not compile: {built.stderr[-500:]}"])
    done = subprocess.run(
        [sys.executable, "-m", "scripts.stress_tests.faults", str(folder), str(n)],
        env={**os.environ, "LD_PRELOAD": str(library)}, capture_output=True, text=True,
    )  # fmt: skip
    if done.returncode:
        return Outcome(promise, test, "not run", [done.stderr[-2000:]])
    counts = json.loads(done.stdout)
    result = (
        f"{counts['failed']} of {counts['calls']} calls, each failed with {', '.join(ERRORS)}, and each killed: of "
        f"{counts['saves']} saves, {counts['older']} left the older checkpoint and {counts['newer']} the new one"
    )
    return Outcome(promise, test, result, counts["failures"])


def inside(folder: Path, n: int) -> dict[str, object]:
    """Fail every call, or n of them. The process must have preloaded faults.so."""
    quiet()
    library = ctypes.CDLL(str(folder / "faults.so"))
    library.faults_arm.argtypes = (ctypes.c_long, ctypes.c_int, ctypes.c_int)
    library.faults_disarm.restype = ctypes.c_long
    run = folder / "run"
    state = TrainerState(build(load_config("toy-mixture", POINTS)), torch.device("cpu"))
    for state.seen in (32, 64):
        checkpoint.save(run, state.snapshot(), keep=2)
    state.seen = 96
    snapshot = state.snapshot()

    def save(number: int, mode: int, error: int) -> None:
        library.faults_arm(number, mode, error)
        try:
            checkpoint.save(run, snapshot, keep=2)
        finally:
            (folder / "calls").write_text(str(library.faults_disarm()))

    before = folder / "before"
    shutil.copytree(run, before)
    status = status_of(start(partial(save, 0, COUNT, 0), folder / "log"))
    assert status == 0, (folder / "log").read_text()
    calls = int((folder / "calls").read_text())
    counts, failures = {"older": 0, "newer": 0}, []
    ways = [("killed", KILL, 0), *((name, FAIL, error) for name, error in ERRORS.items())]
    failed = range(1, calls + 1, max(1, calls // n))
    for number in failed:
        for name, mode, error in ways:
            shutil.rmtree(run)
            shutil.copytree(before, run)
            status = status_of(start(partial(save, number, mode, error), folder / "log"))
            what = f"call {number}, {name}"
            if status not in ((-signal.SIGKILL,) if mode == KILL else (0, 2)):
                failures.append(f"{what}: it exited with {status}: {(folder / 'log').read_text()[-500:]}")
            failures += [f"{what}: {problem}" for problem in after(run, status, counts, snapshot)]
    return {"calls": calls, "failed": len(failed), "saves": len(failed) * len(ways), **counts, "failures": failures}


def after(run: Path, status: int, counts: dict[str, int], snapshot: checkpoint.Snapshot) -> list[str]:
    """What is wrong with a run after a save that was struck."""
    problems = []
    newest = checkpoint.newest(run)
    if newest is None or newest.name not in ("000000064", "000000096"):
        return [f"the newest checkpoint is {newest}"]
    if status == 0 and newest.name != "000000096":
        problems.append("it exited with 0 without a new checkpoint")
    counts["newer" if newest.name == "000000096" else "older"] += 1
    sound = [
        folder for folder in checkpoint.list_checkpoints(run) if _is_sound(lambda folder=folder: formats.verify(folder))
    ]
    if len(sound) < 2:
        problems.append(f"only {len(sound)} sound checkpoint is left")
    if newest.name != "000000096":  # the next attempt must succeed
        checkpoint.save(run, snapshot, keep=2)
        formats.verify(checkpoint.list_checkpoints(run)[-1])
    return problems


def _is_sound(check: Callable[[], object]) -> bool:
    try:
        check()
    except formats.Damaged:
        return False
    return True


if __name__ == "__main__":
    print(json.dumps(inside(Path(sys.argv[1]), int(sys.argv[2]))))
