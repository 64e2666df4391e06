"""Signatures as the schema of presets: keyword-only arguments, read from source files without running them.

Components import PyTorch, which takes seconds; reading their signatures takes milliseconds.
"""

import ast
import re
from collections.abc import Collection, Mapping
from dataclasses import MISSING, dataclass
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Any, TypeVar, cast, get_args, get_origin

from annotated_types import DocInfo

PACKAGE = __name__.partition(".")[0]
Default = TypeVar("Default")
Node = ast.FunctionDef | ast.ClassDef | ast.expr


@dataclass(frozen=True)
class Key:
    """A key of a preset: its type with its range, its default (MISSING if it must be set), and what it does."""

    type: Any  # a type, or a form of typing such as Annotated
    default: object
    help: str = ""


Keys = Mapping[str, Key]


@cache
def keys(module: str, name: str) -> Keys:
    """Return the keyword-only arguments of a module's function, or of its class's own `__init__`."""
    source = _source(module)
    node = source.nodes[name]
    assert isinstance(node, ast.ClassDef | ast.FunctionDef), f"{module}.{name} is neither a function nor a class"
    docstring = ast.get_docstring(node) or ""
    if isinstance(node, ast.ClassDef):
        own = [child for child in node.body if isinstance(child, ast.FunctionDef) and child.name == "__init__"]
        if not own:
            return {}
        node = own[0]
    keys = {}
    for arg, default in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        annotation = source.value(arg.annotation)
        keys[arg.arg] = Key(
            annotation,
            MISSING if default is None else source.value(default),
            _doc(annotation) or _sentence(docstring, arg.arg),
        )
    return keys


def fields(module: str, name: str, chosen: Collection[str]) -> Keys:
    """Return those of the `chosen` fields that a class declares with a docstring below them.

    Their types are evaluated without importing the module, unless it defines a class that one of them names.
    """
    source = _source(module)
    node = source.nodes[name]
    assert isinstance(node, ast.ClassDef), f"{module}.{name} is not a class"
    keys = {}
    for field, doc in zip(node.body, node.body[1:], strict=False):
        if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and isinstance(doc, ast.Expr)):
            continue
        if field.target.id in chosen:
            keys[field.target.id] = Key(source.value(field.annotation), MISSING, ast.literal_eval(doc.value))
    return keys


def _doc(annotation: object) -> str:
    """Return the text of `annotated_types.doc` in an annotation, if it has one."""
    metadata = get_args(annotation)[1:] if get_origin(annotation) is Annotated else ()
    return next((item.documentation for item in metadata if isinstance(item, DocInfo)), "")


def _sentence(docstring: str, key: str) -> str:
    """Return the first sentence of a docstring that mentions a key, such as `dropout`."""
    sentences = re.split(r"(?<=[.;])\s+", " ".join(docstring.split()))
    return next((sentence for sentence in sentences if f"`{key}`" in sentence), "")


def exported(module: str) -> list[str]:
    """Return the `__all__` of a module."""
    return list(_source(module)["__all__"])


def constant(module: str, name: str, default: Default) -> Default:
    """Return the value of a constant of a module, or `default` where the module has none."""
    source = _source(module)
    return cast(Default, source[name]) if name in source.nodes else default


def summary(module: str) -> str:
    """Return the first line of a module's docstring."""
    return _source(module).doc.partition("\n")[0]


def attribute(module: str, name: str, attribute: str) -> object:
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
    """The top-level names of a module, evaluated from its source when they are first looked up.

    A name that the module imports from this package is looked up in the source of its own module; libraries, and our
    classes and functions, are imported. `nodes` maps names to functions, classes and assigned values.
    """

    def __init__(self, module: str) -> None:
        super().__init__()
        spec = find_spec(module)
        if spec is None or spec.origin is None:
            raise ModuleNotFoundError(module)
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
        self.module = module
        self.doc = ast.get_docstring(tree) or ""
        self.nodes: dict[str, Node] = {}
        self._imports: dict[str, tuple[str, str]] = {}  # name -> module, and the name there
        for node in tree.body:
            self._add(node)

    def value(self, node: ast.expr | None) -> object:
        """Evaluate an annotation or a default."""
        assert node is not None, f"{self.module}: a keyword-only argument has no annotation"
        return eval(compile(ast.Expression(node), "<signature>", "eval"), {}, self)

    def _add(self, node: ast.stmt) -> None:
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            self.nodes[node.name] = node
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            self.nodes[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            self.nodes[node.target.id] = node.value
        elif isinstance(node, ast.Import):
            self._imports |= {alias.asname or alias.name: (alias.name, "") for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            self._imports |= {alias.asname or alias.name: (node.module, alias.name) for alias in node.names}

    def __missing__(self, name: str) -> object:
        self[name] = value = self._look_up(name)
        return value

    def _look_up(self, name: str) -> object:
        if name in self.nodes:
            node = self.nodes[name]
            return self.value(node) if isinstance(node, ast.expr) else getattr(import_module(self.module), name)
        module, name_there = self._imports[name]  # a KeyError lets Python look among its builtins
        if name_there and module.split(".")[0] == PACKAGE:
            return _source(module)[name_there]
        imported = import_module(module)
        return getattr(imported, name_there) if name_there else imported


_source = cache(_Source)
