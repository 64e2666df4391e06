"""Imports go down only, and what only one module may do: print, know ranks, change a library's settings."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import tdpm_cli
from scripts.figures import imported
from tdpm_cli.config import registry

LAYERS = [  # from the top to the ground
    "cli", "export", "evaluation", "training", "convert", "sampling", "models", "conditioning", "spaces", "engine",
    "data", "checkpoints", "config", "runtime",
]  # fmt: skip
ENGINE_IMPORTS = {"engine", "config"}  # the mathematics knows no file, device choice or rank
PRINTING = {"print", "typer.echo", "sys.stdout", "sys.stderr"}
MAY_PRINT = ("cli/", "runtime/console.py")
# The launcher sets the ranks of the processes that it starts; the command line labels a process's error by its rank.
MAY_READ_RANKS = ("runtime/distributed.py", "runtime/launch.py", "cli/__init__.py")
RANKS = {"RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"}
ROOT = Path(tdpm_cli.__file__).parent
FILES = sorted(path for path in ROOT.rglob("*.py") if len(path.relative_to(ROOT).parts) > 1)
SETTINGS = """
import json, os, sys, warnings
import numpy, torch
from PIL import Image
def settings():
    return {
        "pixels": Image.MAX_IMAGE_PIXELS,
        "matmul": torch.get_float32_matmul_precision(),
        "tf32": [torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32],
        "benchmark": torch.backends.cudnn.benchmark,
        "threads": [torch.get_num_threads(), torch.get_num_interop_threads()],
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "dtype": str(torch.get_default_dtype()),
        "environment": sorted(name for name in os.environ if name.startswith(("TDPM", "OMP", "MALLOC"))),
    }
before = settings()
for module in json.loads(sys.argv[1]):
    __import__(module)
after = settings()
print(json.dumps({name: [before[name], after[name]] for name in before if before[name] != after[name]}))
"""


def name(path):
    return path.relative_to(ROOT).as_posix()


def imported_modules(path):
    """The modules of ours that a file imports."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tdpm_cli."):
            yield from (node.module, *(f"{node.module}.{alias.name}" for alias in node.names))
        elif isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)


def lines_that_print(path):
    """The lines of a file that print, or use a standard stream."""
    for node in ast.walk(ast.parse(path.read_text())):
        used = node.func if isinstance(node, ast.Call) else node
        if isinstance(used, ast.Name | ast.Attribute) and ast.unparse(used) in PRINTING:
            yield node.lineno


def lines_with_ranks(path):
    """The lines of a file that use torch.distributed, or read the environment variables of a process group."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            uses = [node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)]
        elif isinstance(node, ast.Import):
            uses = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            uses = [ast.unparse(node)]
        else:
            uses = [node.value] if isinstance(node, ast.Constant) else []
        if any(use in RANKS or f"{use}.".startswith("torch.distributed.") for use in uses):
            yield node.lineno


@pytest.mark.parametrize("path", FILES, ids=name)
def test_imports_go_down_only(path):
    package = path.relative_to(ROOT).parts[0]
    allowed = ENGINE_IMPORTS if package == "engine" else set(LAYERS[LAYERS.index(package) :])
    packages = {package for node in ast.walk(ast.parse(path.read_text())) for package in imported(node)}
    assert packages & set(LAYERS) <= allowed


@pytest.mark.parametrize("path", [path for path in FILES if path.parent.parent.name == "models"], ids=name)
def test_networks_do_not_import_each_other(path):
    kinds = {f"tdpm_cli.{package}." for package in registry.KINDS.values() if package.startswith("models.")}
    assert not [module for module in imported_modules(path) if module.startswith(tuple(kinds))]


def test_every_package_is_in_the_layers_and_no_module_is_loose():
    packages = {path.name for path in ROOT.iterdir() if path.is_dir() and (path / "__init__.py").is_file()}
    assert packages == set(LAYERS)
    assert {path.name for path in ROOT.glob("*.py")} == {"__init__.py", "__main__.py"}


def test_only_the_console_and_the_command_line_print():
    printing = {name(path): lines for path in FILES if (lines := list(lines_that_print(path)))}
    assert {path: lines for path, lines in printing.items() if not path.startswith(MAY_PRINT)} == {}


@pytest.mark.parametrize(
    ("function", "argument"), [("torch.load", "weights_only=True"), ("np.load", "allow_pickle=False")]
)
def test_pickles_are_read_as_data(function, argument):
    calls = [
        node
        for path in FILES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) == function
    ]
    assert calls
    assert [ast.unparse(call) for call in calls if argument not in ast.unparse(call)] == []


def test_only_the_process_group_knows_ranks():
    ranked = {name(path): lines for path in FILES if (lines := list(lines_with_ranks(path)))}
    assert {path: lines for path, lines in ranked.items() if path not in MAY_READ_RANKS} == {}


def test_importing_every_module_changes_no_setting():
    modules = [".".join(path.relative_to(ROOT.parent).with_suffix("").parts) for path in FILES]
    process = subprocess.run(
        [sys.executable, "-c", SETTINGS, json.dumps([module.removesuffix(".__init__") for module in modules])],
        capture_output=True, text=True,
    )  # fmt: skip
    assert process.returncode == 0, process.stderr
    assert json.loads(process.stdout.splitlines()[-1]) == {}
