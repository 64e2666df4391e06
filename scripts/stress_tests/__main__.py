"""What is promised of crashes, damage and hostile input, tried out: prints a table, and fails where a promise does."""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from scripts.stress_tests import damage, faults, hostile, inputs, kills
from scripts.stress_tests.processes import Outcome

PARTS: dict[str, tuple[Callable[[int, Path], Outcome], int]] = {  # and how often, where nothing else is said
    "kills": (kills.training, 100),
    "sampling": (kills.sampling, 100),
    "damage": (damage.damaged, 1000),
    "configs": (inputs.configs, 1000),
    "lines": (inputs.lines, 1000),
    "hostile": (hostile.hostile, 1),
    "faults": (faults.faults, 1000),
}


def main() -> None:
    parser = argparse.ArgumentParser(prog="scripts/stress", description=__doc__)
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them where none is named")
    parser.add_argument(
        "--n", type=int, help="how often, in place of " + ", ".join(f"{k} {n}" for k, (_, n) in PARTS.items())
    )
    parser.add_argument("--share", type=float, default=1.0, help="a share of that, for a short try of all parts")
    parser.add_argument("--json", action="store_true", help="one object for each part, in place of the table")
    given = parser.parse_args()
    if unknown := set(given.parts) - PARTS.keys():
        parser.error(f"no part {', '.join(sorted(unknown))}; there are {', '.join(PARTS)}")
    failed = False
    if not given.json:
        print("| promise | test | figure | command |\n|---|---|---|---|", flush=True)
    for name in given.parts or PARTS:
        work, often = PARTS[name]
        often = given.n or max(1, round(often * given.share))
        begin = time.monotonic()
        with tempfile.TemporaryDirectory(prefix=f"stress-{name}-") as folder:
            outcome = work(often, Path(folder))
        took = time.monotonic() - begin
        command = f"scripts/stress {name}" + ("" if often == PARTS[name][1] else f" --n {often}")
        if given.json:
            print(json.dumps({"part": name, "figure": outcome.figure, "failures": outcome.failures}), flush=True)
        else:
            figure = outcome.figure + (f"; **{len(outcome.failures)} FAILED**" if outcome.failures else "")
            print(f"| {outcome.promise} | {outcome.test} | {figure} | `{command}` ({took:.0f} s) |", flush=True)
        for failure in outcome.failures[:20]:
            print(f"FAILED {name}: {failure}", file=sys.stderr)
        failed = failed or bool(outcome.failures)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
