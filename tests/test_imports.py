"""Imports go down only: a package may import those below it in LAYERS."""

import ast
from pathlib import Path

import pytest

import tdpm_cli

LAYERS = [  # from the top to the ground
    "cli", "export", "evaluation", "training", "convert", "sampling", "models", "conditioning", "spaces", "engine",
    "data", "checkpoints", "config", "runtime",
]  # fmt: skip
ENGINE_IMPORTS = {"engine", "config"}  # the mathematics knows no file, device choice or rank
ROOT = Path(tdpm_cli.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if len(path.relative_to(ROOT).parts) > 1)


def imported_packages(path):
    """The packages of ours that a file imports, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "tdpm_cli":
            yield from (alias.name for alias in node.names if alias.name in LAYERS)
        elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tdpm_cli."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tdpm_cli."))


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = ENGINE_IMPORTS if package == "engine" else set(LAYERS[LAYERS.index(package) :])
    assert set(imported_packages(path)) <= allowed


def test_every_package_is_in_the_layers_and_no_module_is_loose():
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert packages == set(LAYERS)
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}
