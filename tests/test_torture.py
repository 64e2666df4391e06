"""scripts/torture, in short: the same code with fewer kills, damages and calls; and whole, where slow tests run."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

PARTS = ["kills", "sampling", "damage", "configs", "lines", "hostile", "faults"]
ROOT = Path(__file__).parent.parent


def tortured(*words):
    done = subprocess.run(
        [sys.executable, "-m", "scripts.tortures", "--json", *words], cwd=ROOT, capture_output=True, text=True
    )
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith('{"part"')]
    assert done.returncode == 0, (found, done.stderr)
    return found


def test_every_promise_in_short():
    pytest.importorskip("hypothesis")
    assert [line["part"] for line in tortured("--share", "0.006")] == PARTS


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_every_promise_in_full(part):
    (line,) = tortured(part)
    assert line["failures"] == []
