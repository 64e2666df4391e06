import re
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("words", "ratios"),
    [
        (["train", "--preset", "digits", "--batch", "4", "--rounds", "1"], 2),
        (["sample", "--preset", "digits", "--n", "4", "--batch", "4", "--rounds", "1", "--steps", "2"], 2),
        (["merge", "--preset", "digits", "--batch", "4", "--rounds", "1"], 1),
        (["attention", "--tokens", "16", "--rounds", "2"], 1),
        (["supply", "digits"], 1),
        (["parallel", "--batch", "8", "--steps", "4", "--rounds", "1"], 1),
    ],
)
def test_ours_and_the_peer_are_measured(words, ratios):
    pytest.importorskip("diffusers")
    done = subprocess.run(
        [sys.executable, "-m", "scripts.benchmarks", *words], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    found = [float(ratio) for ratio in re.findall(r"ratio +([\d.]+)", done.stdout)]
    assert len(found) == ratios
    assert all(ratio > 0 for ratio in found)
