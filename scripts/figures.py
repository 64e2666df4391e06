"""Print the figures of a tree's architecture: its size, what exceeds the limits, and its imports between packages.

    python -m scripts.figures [--offenders] [FOLDER]

The same figures of any checkout, of this one or an older one: sizes of modules, functions above the limits (more than
60 lines, cyclomatic complexity above 12, more than 6 parameters), uses of `Any`, probes by hasattr and getattr, imports
between packages, and words that the language rules ban. `--offenders` lists each find with its file and line instead.
Options of commands and keys of components are declared, not passed by hand: parameters of the functions in
tdpm_cli/cli, and keyword-only parameters of components that the registry finds, do not count.
"""

import argparse
import ast
import re
import statistics
from collections.abc import Iterator
from pathlib import Path

from scripts.banned_words import finds

MAX_LINES, MAX_COMPLEXITY, MAX_PARAMETERS = 60, 12, 6
Function = ast.FunctionDef | ast.AsyncFunctionDef


class Tree:
    """The Python modules of the package in a checkout."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.package = root / "tdpm_cli"
        self.sources = {path: path.read_text(encoding="utf-8") for path in sorted(self.package.rglob("*.py"))}
        self.modules = {path: ast.parse(source) for path, source in self.sources.items()}

    def name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def packages(self) -> set[str]:
        """Every folder that holds modules."""
        return {path.parent.relative_to(self.package).as_posix() for path in self.modules} - {"."}

    def loose(self) -> list[str]:
        """Modules beside the packages."""
        return [path.name for path in self.modules if path.parent == self.package and path.name[:2] != "__"]

    def lines(self) -> dict[str, int]:
        """Lines of each module."""
        return {self.name(path): source.count("\n") for path, source in self.sources.items()}

    def functions(self) -> Iterator[tuple[str, Function]]:
        """Every function, with FILE:LINE."""
        for path, module in self.modules.items():
            for node in ast.walk(module):
                if isinstance(node, Function):
                    yield f"{self.name(path)}:{node.lineno}", node

    def calls(self, name: str) -> Iterator[str]:
        """FILE:LINE of every call of a builtin."""
        for path, module in self.modules.items():
            for node in ast.walk(module):
                if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name:
                    yield f"{self.name(path)}:{node.lineno}"

    def uses_of_any(self) -> Iterator[str]:
        """FILE:LINE of every `Any` in an annotation."""
        for path, module in self.modules.items():
            for node in ast.walk(module):
                if isinstance(node, ast.Name) and node.id == "Any":
                    yield f"{self.name(path)}:{node.lineno}"

    def imports(self) -> Iterator[tuple[str, str, str]]:
        """Every import of one top-level package from another: FILE:LINE, who imports, what is imported."""
        for path, module in self.modules.items():
            own = path.relative_to(self.package).with_suffix("").parts[0]
            if own.startswith("__"):
                continue
            for node in ast.walk(module):
                for other in imported(node):
                    if other != own and ((self.package / other).is_dir() or (self.package / f"{other}.py").is_file()):
                        yield f"{self.name(path)}:{node.lineno}", own, other  # type: ignore[attr-defined]

    def layers(self) -> dict[str, int]:
        """The height of each package, from LAYERS (or, before 0.2.0, FLOORS) of tests/test_imports.py."""
        path = self.root / "tests" / "test_imports.py"
        for node in ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                if node.targets[0].id == "LAYERS":
                    return {name: -k for k, name in enumerate(ast.literal_eval(node.value))}
                if node.targets[0].id == "FLOORS":
                    return ast.literal_eval(node.value)
        return {}


def imported(node: ast.AST) -> Iterator[str]:
    """Yield the first name below tdpm_cli of each import."""
    if isinstance(node, ast.ImportFrom) and node.module == "tdpm_cli":
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom) and (node.module or "").startswith("tdpm_cli."):
        yield (node.module or "").split(".")[1]
    elif isinstance(node, ast.Import):
        yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("tdpm_cli."))


def complexity(function: ast.AST) -> int:
    """Cyclomatic complexity as ruff's C901 counts it: statements that branch, those of nested functions included."""
    total = 1
    for node in ast.walk(function):
        if isinstance(node, ast.If | ast.For | ast.AsyncFor | ast.While | ast.ExceptHandler | ast.match_case):
            total += 1
        if isinstance(node, ast.For | ast.AsyncFor | ast.While | ast.Try) and node.orelse:
            total += 1
        if isinstance(node, Function) and node is not function:
            total += 1
    return total


def parameters(function: Function, component: bool) -> int:
    """Count the parameters that a caller passes by hand, without self."""
    names = [arg.arg for arg in [*function.args.posonlyargs, *function.args.args]]
    names += [] if component else [arg.arg for arg in function.args.kwonlyargs]
    return len(names) - (names[:1] in (["self"], ["cls"]))


def is_component(path: str, source: str) -> bool:
    """Whether a module is one that the registry finds: it exports exactly one name."""
    return bool(re.search(r'^__all__ = \["\w+"\]', source, re.MULTILINE)) and path.count("/") > 1


def offenders(tree: Tree) -> dict[str, list[str]]:
    """Return what exceeds the limits: the limit -> its finds, each with FILE:LINE."""
    sources = {tree.name(path): source for path, source in tree.sources.items()}
    result: dict[str, list[str]] = {
        f"functions above {MAX_LINES} lines": [],
        f"functions of complexity above {MAX_COMPLEXITY}": [],
        f"functions of more than {MAX_PARAMETERS} parameters": [],
    }
    long, complex_, wide = result.values()
    for place, node in tree.functions():
        path = place.partition(":")[0]
        lines = (node.end_lineno or node.lineno) - node.lineno + 1
        if lines > MAX_LINES:
            long.append(f"{place} {node.name}: {lines} lines")
        if (count := complexity(node)) > MAX_COMPLEXITY:
            complex_.append(f"{place} {node.name}: complexity {count}")
        declared = path.startswith("tdpm_cli/cli/")
        if not declared and (count := parameters(node, is_component(path, sources[path]))) > MAX_PARAMETERS:
            wide.append(f"{place} {node.name}: {count} parameters")
    result["uses of Any"] = list(tree.uses_of_any())
    result["hasattr calls"] = list(tree.calls("hasattr"))
    result["getattr calls"] = list(tree.calls("getattr"))
    heights = tree.layers()
    result["imports upward"] = [
        f"{place} {own} imports {other}" for place, own, other in tree.imports()
        if own in heights and other in heights and heights[other] > heights[own]
    ]  # fmt: skip
    banned = finds(tree.root, ("tdpm_cli", "presets"))
    result["banned words"] = [f"{find.path}:{find.line} {find.word}" for find in banned if "(name)" not in find.word]
    result["banned names"] = [f"{find.path}:{find.line} {find.word}" for find in banned if "(name)" in find.word]
    return result


def figures(tree: Tree) -> dict[str, str]:
    """Return the figures of a tree, each with its name."""
    lines = tree.lines()
    largest = sorted(lines.items(), key=lambda item: -item[1])[:3]
    pairs = {(own, other) for _, own, other in tree.imports()}
    longest = max(((node.end_lineno or 0) - node.lineno + 1, place, node.name) for place, node in tree.functions())
    return {
        "packages at the top": f"{len({package.split('/')[0] for package in tree.packages()})}",
        "packages in all": f"{len(tree.packages())}",
        "modules": f"{len(tree.modules)}",
        "loose modules": f"{len(tree.loose())}",
        "lines": f"{sum(lines.values())}",
        "median lines of a module": f"{statistics.median(lines.values()):.0f}",
        "largest modules": ", ".join(f"{path.removeprefix('tdpm_cli/')} {count}" for path, count in largest),
        "longest function": f"{longest[2]}, {longest[0]} lines",
        "pairs of packages with imports": f"{len(pairs)}",
        "circles of two packages": f"{sum((other, own) in pairs for own, other in pairs) // 2}",
    } | {name: f"{len(places)}" for name, places in offenders(tree).items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", nargs="?", type=Path, default=Path(), help="a checkout (this one)")
    parser.add_argument("--offenders", action="store_true", help="list what exceeds the limits")
    options = parser.parse_args()
    tree = Tree(options.folder)
    if options.offenders:
        for name, places in offenders(tree).items():
            if not name.startswith("banned"):
                print(f"\n{name}: {len(places)}", *places, sep="\n")
    else:
        for name, figure in figures(tree).items():
            print(f"{name:36} {figure}")


if __name__ == "__main__":
    main()
