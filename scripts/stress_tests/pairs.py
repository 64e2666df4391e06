"""Every pair of commands that write, at once in one folder: neither may break the other."""

import itertools
import os
import random
from pathlib import Path

from scripts.stress_tests.hostile import end_call, start_call
from scripts.stress_tests.processes import Outcome, quiet
from scripts.stress_tests.verbs import PRECIOUS, command_lines, new_place, run_in, written


def pairs(n: int, folder: Path) -> Outcome:
    """Run n pairs of commands at once. Each must end with status 0 or 2; then each alone must end with status 0."""
    quiet()
    lines = command_lines(folder)
    failures = list[str]()
    every = list(itertools.combinations_with_replacement(lines, 2))
    chosen = random.Random(0).sample(every, min(n, len(every)))
    rejected = 0
    for names in chosen:
        place = new_place(folder / "trial")
        results = _at_once(place, [lines[name] for name in names], folder)
        for name, (status, output) in zip(names, results, strict=True):
            rejected += status == 2
            if status not in (0, 2) or "Traceback" in output or "defect" in output:
                failures.append(f"{' and '.join(names)}: {name}: status {status}: {output[-400:]}")
        for name in dict.fromkeys(names):
            status, output = run_in(place, lines[name], folder / "log")
            if status != 0:
                failures.append(f"{' and '.join(names)}, then {name}: status {status}: {output[-400:]}")
        failures += [f"{' and '.join(names)}: {path} was left" for path in written(place) if ".part" in path]
        if (place / "precious.txt").read_text() != PRECIOUS:
            failures.append(f"{' and '.join(names)}: a file outside was changed")
    return Outcome(
        "Two commands at once in one folder do not break each other.",
        f"{len(chosen)} of {len(every)} pairs of {len(lines)} commands, then each command alone",
        f"{2 * len(chosen) - rejected} complete and {rejected} rejected with status 2; {len(failures)} with another "
        "status, or unable to continue",
        failures,
    )


def _at_once(place: Path, commands: list[list[str]], folder: Path) -> list[tuple[int, str]]:
    """Run commands at the same time in a working directory; return the status and output of each."""
    logs = [folder / f"log-{k}" for k in range(len(commands))]
    before = Path.cwd()
    os.chdir(place)
    try:
        calls = [start_call(command, log) for command, log in zip(commands, logs, strict=True)]
    finally:
        os.chdir(before)
    return [end_call(call, log)[:2] for call, log in zip(calls, logs, strict=True)]
