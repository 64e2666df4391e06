"""scripts/stress: a small share of most parts in the ordinary suite, and each part in full among the slow tests."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

QUICK = ["damage", "configs", "lines", "faults", "terminals"]  # a small share takes seconds
PARTS = ["kills", "sampling", *QUICK, "hostile", "ownership", "disk", "pairs"]
ROOT = Path(__file__).parent.parent


def run_stress(*arguments):
    """Run scripts/stress and return one result for each part."""
    process = subprocess.run(
        [sys.executable, "-m", "scripts.stress_tests", "--json", *arguments], cwd=ROOT, capture_output=True, text=True
    )
    results = [json.loads(line) for line in process.stdout.splitlines() if line.startswith('{"part"')]
    assert process.returncode == 0, (results, process.stderr)
    return results


@pytest.mark.parametrize("part", QUICK)
def test_a_share_of_a_part_passes(part):
    pytest.importorskip("hypothesis")
    (result,) = run_stress(part, "--share", "0.006")
    assert (result["part"], result["failures"]) == (part, [])


@pytest.mark.slow
@pytest.mark.parametrize("part", PARTS)
def test_a_part_passes_in_full(part):
    (result,) = run_stress(part)
    assert result["failures"] == []
