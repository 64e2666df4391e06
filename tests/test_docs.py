"""docs/reference.md holds what scripts/docs writes, which needs no PyTorch."""

import subprocess
import sys
from pathlib import Path

from scripts import docs

ROOT = Path(__file__).parent.parent


def test_the_reference_page_is_current():
    assert docs.PAGE.read_text(encoding="utf-8") == docs.text(), "run scripts/docs"


def test_the_reference_page_needs_no_torch():
    code = "import sys; sys.path.append('.'); from scripts import docs; docs.text(); print('torch' in sys.modules)"
    process = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert process.stdout.strip() == "False"
