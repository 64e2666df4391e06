"""Stress tests of what docs/reliability.md promises about crashes, damage and hostile files.

    scripts/stress [PART ...] [--n N] [--share SHARE] [--json]

Prints a table with a line for each part, and ends with status 1 if a promise does not hold.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.stress_tests import damage, disk, faults, hostile, inputs, kills, ownership, pairs, terminals
from scripts.stress_tests.processes import Outcome

PARTS: dict[str, tuple[Callable[[int, Path], Outcome], int]] = {  # name -> its function, and the number of trials
    "kills": (kills.training, 100),
    "sampling": (kills.sampling, 100),
    "damage": (damage.damaged_checkpoints, 1000),
    "configs": (inputs.configs, 1000),
    "lines": (inputs.lines, 1000),
    "hostile": (hostile.hostile_files, 62),
    "faults": (faults.faults, 1000),
    "terminals": (terminals.terminals, 42),
    "ownership": (ownership.ownership, 300),
    "disk": (disk.disks, 8),
    "pairs": (pairs.pairs, 78),
}


def main() -> None:
    options = parse_options()
    failed = False
    if not options.json:
        print("| promise | test | result | command |\n|---|---|---|---|", flush=True)
    for name in options.parts or PARTS:
        trials = options.n or max(1, round(PARTS[name][1] * options.share))
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"stress-{name}-") as folder:
            outcome = PARTS[name][0](trials, Path(folder))
        print_outcome(name, trials, outcome, time.monotonic() - begin, as_json=options.json)
        failed = failed or bool(outcome.failures)
    sys.exit(1 if failed else 0)


def parse_options() -> argparse.Namespace:
    counts = ", ".join(f"{name} {trials}" for name, (_, trials) in PARTS.items())
    parser = argparse.ArgumentParser(
        prog="scripts/stress", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"{', '.join(PARTS)} (default: all)")
    parser.add_argument("--n", type=int, help=f"trials (default: {counts})")
    parser.add_argument("--share", type=float, default=1.0, help="share of the default number of trials (default: 1)")
    parser.add_argument("--json", action="store_true", help="print one JSON object for each part, not a table")
    options = parser.parse_args()
    if unknown := set(options.parts) - PARTS.keys():
        parser.error(f"unknown part {', '.join(sorted(unknown))}; the parts are {', '.join(PARTS)}")
    return options


def print_outcome(name: str, trials: int, outcome: Outcome, seconds: float, *, as_json: bool) -> None:
    """Print an outcome as a line of the table or as JSON, and its first 20 failures as errors."""
    if as_json:
        print(json.dumps({"part": name, "result": outcome.result, "failures": outcome.failures}), flush=True)
    else:
        command = f"scripts/stress {name}" + ("" if trials == PARTS[name][1] else f" --n {trials}")
        result = outcome.result + (f"; **{len(outcome.failures)} FAILED**" if outcome.failures else "")
        print(f"| {outcome.promise} | {outcome.test} | {result} | `{command}` ({seconds:.0f} s) |", flush=True)
    for failure in outcome.failures[:20]:
        print(f"FAILED {name}: {failure}", file=sys.stderr)


if __name__ == "__main__":
    main()
