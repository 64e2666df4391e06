"""Imports go down only: cli → commands → scoring, training → sampling → assemble → config → parts, run → engine."""

import ast
from pathlib import Path

import tdpm_cli

FLOORS = {
    "errors": 0,
    "words": 1,
    "signatures": 1,
    "engine": 1,
    "checking": 2,
    "imaging": 2,
    "run": 3,
    "parts": 3,
    "config": 4,
    "presets": 5,
    "assemble": 5,
    "captions": 5,
    "placing": 6,
    "proposal": 6,
    "sampling": 6,
    "cost": 6,
    "folders": 6,
    "interchange": 6,
    "model": 7,
    "exporting": 7,
    "scoring": 7,
    "training": 7,
    "commands": 8,
    "cli": 9,
}
ROOT = Path(tdpm_cli.__file__).parent
ALONE = {"engine"}  # imports nothing of ours but itself


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tdpm_cli"):
            for alias in node.names:
                yield f"{node.module}.{alias.name}".split(".")[1:]
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1:] for alias in node.names if alias.name.startswith("tdpm_cli."))


def violations():
    for path in ROOT.rglob("*.py"):
        here = path.relative_to(ROOT).with_suffix("").parts
        if here[0] == "__init__" or here[-1] == "__main__":
            continue
        for there in imports_of(path):
            if there[0] not in FLOORS:  # the package's own names, such as __version__
                continue
            same_room = here[0] == there[0]
            if FLOORS[there[0]] > FLOORS[here[0]]:
                yield f"{'.'.join(here)} imports upward: {'.'.join(there)}"
            if not same_room and FLOORS[there[0]] == FLOORS[here[0]]:
                yield f"{'.'.join(here)} imports across: {'.'.join(there)}"
            if same_room and here[0] == "commands":
                yield f"{'.'.join(here)} imports another command: {'.'.join(there)}"
            other_kind = there[1:2] != [here[1]] and (ROOT / "parts" / there[1]).is_dir() if len(here) > 2 else False
            if same_room and here[0] == "parts" and other_kind:
                yield f"{'.'.join(here)} imports a part of another kind: {'.'.join(there)}"
            if here[0] in ALONE and not same_room:
                yield f"{'.'.join(here)} imports {'.'.join(there)}"


def test_imports_go_down_only():
    assert list(violations()) == []


def test_every_room_is_walked():
    rooms = {path.relative_to(ROOT).with_suffix("").parts[0] for path in ROOT.rglob("*.py")}
    assert rooms - {"__init__", "__main__"} == set(FLOORS)
