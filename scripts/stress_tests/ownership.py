"""Files of others in the places of those that a command writes: tdpm must leave them as they are."""

import itertools
import os
import random
from collections.abc import Callable
from pathlib import Path

from scripts.stress_tests.processes import Outcome, quiet
from scripts.stress_tests.verbs import OUT, PRECIOUS, command_lines, complete_place, new_place, run_in, written


def link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def dangling_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious.with_name("missing"))


def hard_link(path: Path, precious: Path) -> None:
    path.hardlink_to(precious)


def fifo(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def file(path: Path, precious: Path) -> None:
    path.write_text(PRECIOUS)


def folder_of_files(path: Path, precious: Path) -> None:
    path.mkdir()
    (path / "precious.txt").write_text(PRECIOUS)


TRAPS: list[Callable[[Path, Path], None]] = [link, dangling_link, hard_link, fifo, file, folder_of_files]


def ownership(n: int, folder: Path) -> Outcome:
    """Put something of another owner in the place of a file that a command writes, n times, and run the command."""
    quiet()
    failures = list[str]()
    trials = []
    lines = command_lines(folder)
    for name, command in lines.items():
        place = complete_place(command, folder)
        trials += list(itertools.product([(name, command)], written(place), TRAPS))
    random.Random(0).shuffle(trials)
    accepted = 0
    for (name, command), path, trap in trials[:n]:
        place = new_place(folder / "trial")
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        trap(place / path, place / "precious.txt")
        status, output = run_in(place, command, folder / "log")
        accepted += status == 0
        what = f"{name}, {trap.__name__.replace('_', ' ')} at {path}"
        if status not in (0, 2) or "Traceback" in output or "defect" in output:
            failures.append(f"{what}: status {status}: {output[-400:]}")
        failures += [f"{what}: {problem}" for problem in losses(place, trap)]
    count = min(n, len(trials))
    return Outcome(
        "tdpm changes and removes nothing that it did not write.",
        f"{count} of {len(trials)} pairs of a file that one of {len(lines)} commands writes, and "
        f"something else in its place: {', '.join(trap.__name__.replace('_', ' ') for trap in TRAPS)}",
        f"{count - accepted} rejected with status 2, {accepted} written without a loss; {len(failures)} lost, or ended "
        "with another status",
        failures,
    )


def losses(place: Path, trap: Callable[[Path, Path], None]) -> list[str]:
    """Return what was lost."""
    problems = []
    if (place / "precious.txt").read_text() != PRECIOUS:
        problems.append("a file outside was changed")
    if (place / "missing").exists():
        problems.append("a file outside was created")
    if trap in (file, folder_of_files) and not any(_is_precious(other) for other in (place / OUT).rglob("*")):
        problems.append("the file was removed")  # a folder in the place of a checkpoint is set aside
    return problems


def _is_precious(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and path.read_bytes() == PRECIOUS.encode()
