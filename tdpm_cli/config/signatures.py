"""Signatures, which are the schema of presets: keyword-only arguments, read from source files without running them.

The files of parts, samplers and chains import PyTorch, which takes seconds; their signatures are read in milliseconds.
"""

import ast
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

PACKAGE = __name__.partition(".")[0]


@dataclass(frozen=True)
class Key:
    """A value that can be set: its type, with its range, and its default, MISSING where it must be set."""

    type: Any
    default: Any


Keys = Mapping[str, Key]


@cache
def keys(module: str, name: str) -> Keys:
    """The keyword-only arguments of a function of a module, or of its class's own `__init__`."""
    source = _source(module)
    node = source.nodes[name]
    if isinstance(node, ast.ClassDef):
        own = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
        if not own:
            return {}
        node = own[0]
    assert isinstance(node, ast.FunctionDef), f"{module}.{name} is neither a function nor a class"
    return {
        arg.arg: Key(source.value(arg.annotation), MISSING if default is None else source.value(default))
        for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True)
    }


def functions(module: str, first: Sequence[str] = ()) -> list[str]:
    """The public functions of a module whose positional arguments begin with `first`."""
    return [
        name
        for name, node in _source(module).nodes.items()
        if isinstance(node, ast.FunctionDef)
        and not name.startswith("_")
        and [arg.arg for arg in node.args.args[: len(first)]] == list(first)
    ]


def exported(module: str) -> list[str]:
    """The `__all__` of a module."""
    return list(_source(module)["__all__"])


def constant(module: str, name: str, default: Any) -> Any:
    """Return the value of a constant of a module, or `default` where the module has none."""
    source = _source(module)
    return source[name] if name in source.nodes else default


def summary(module: str) -> str:
    """Return the first line of a module's docstring."""
    return _source(module).doc.partition("\n")[0]


def attribute(module: str, name: str, attribute: str) -> Any:
    """Return the value of a class's attribute that is set in the body of the class."""
    source = _source(module)
    node = source.nodes[name]
    assert isinstance(node, ast.ClassDef), f"{module}.{name} is not a class"
    for statement in node.body:
        if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name) and statement.value:
            pairs: list[tuple[ast.expr, ast.expr]] = [(statement.target, statement.value)]
        elif isinstance(statement, ast.Assign):
            pairs = _assigned(statement)
        else:
            continue
        for target, value in pairs:
            if isinstance(target, ast.Name) and target.id == attribute:
                return source.value(value)
    raise AttributeError(f"{module}.{name} sets no {attribute}")


def _assigned(statement: ast.Assign) -> list[tuple[ast.expr, ast.expr]]:
    """Return targets with their values: `a = 1` has one of each, `a, b = 1, 2` has two."""
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return list(zip(target.elts, value.elts, strict=True))
    return [(target, value)]


class _Source(dict[str, Any]):
    """The values of a module's top-level names, each found when it is asked for: evaluated where it is assigned, or, of
    another file of ours, read there, or imported from a library. `nodes` are functions, classes and assigned values."""

    def __init__(self, module: str) -> None:
        super().__init__()
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        self.doc = ast.get_docstring(tree) or ""
        self.nodes: dict[str, ast.AST] = {}
        self._imported: dict[str, tuple[str, str]] = {}  # from where, and what it is called there
        for node in tree.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                self.nodes[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.nodes[node.targets[0].id] = node.value
            elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
                self.nodes[node.target.id] = node.value
            elif isinstance(node, ast.Import):
                self._imported |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                self._imported |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}

    def value(self, node: Any) -> Any:
        """Evaluate an annotation or a default."""
        return eval(compile(ast.Expression(node), "<signature>", "eval"), {}, self)

    def __missing__(self, name: str) -> Any:
        if name in self.nodes:
            found = self.value(self.nodes[name])
        else:
            module, there = self._imported[name]  # a KeyError leaves builtins to be found
            if there and module.split(".")[0] == PACKAGE:
                found = _source(module)[there]
            else:
                found = getattr(import_module(module), there) if there else import_module(module)
        self[name] = found
        return found


_source = cache(_Source)
