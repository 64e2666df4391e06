"""Everything a preset can name. A part is the one class or function in the `__all__` of its file; its name is the
file's, with hyphens for underscores.

Positional parameters of a part are what the program hands it; keyword-only ones are the keys that a preset
may set, and their annotations are the schema, which is read from the source: of a class, from its own `__init__`;
names in it are assigned one by one, or imported, at the top of the file. A new file under a room is a new part: nothing
else changes.
"""

import pkgutil
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

from tdpm_cli.config import signatures
from tdpm_cli.runtime.errors import one_of

KINDS = {  # kind -> the package whose files are its components
    "data": "data.datasets",
    "space": "spaces",
    "condition": "conditioning",
    "text_encoder": "conditioning.text_encoders",
    "backbone": "models.backbones",
    "prior": "models.priors",
    "discriminator": "models.discriminators",
    "features": "evaluation.features",
}


def names(kind: str) -> list[str]:
    """The parts of a kind ("prior", "space", ...), without importing them."""
    package = import_module(f"tdpm_cli.{KINDS[kind]}")
    modules = pkgutil.iter_modules(package.__path__)
    return sorted(module.name.replace("_", "-") for module in modules if not module.ispkg)


def recognise(path: Path, preferred: str) -> str:
    """The data part that reads what lies at `path`: the preferred one where it knows it, else the first that does.

    Parts say so by a function `recognises(path)` in their file; `images`, which takes any folder, is asked last.
    """
    known = names("data")
    if preferred in known and path.exists():
        for name in sorted(known, key=lambda name: (name == "images", name != preferred)):
            knows = getattr(_module("data", name), "recognises", None)
            if knows and knows(path):
                return name
    return preferred


def load(kind: str, name: str, key: str | None = None) -> Any:
    """A part, to be called. `name` resolves only inside this package; raises InputError, naming `key`, for others."""
    check_name(kind, name, key)
    module = _module(kind, name)
    (part,) = module.__all__
    found = getattr(module, part)
    assert callable(found)
    return found


def keys(kind: str, name: str, key: str | None = None) -> signatures.Keys:
    """The keys of a part, without importing it. Raises InputError as `load` does."""
    check_name(kind, name, key)
    (part,) = signatures.exported(_home(kind, name))
    return signatures.keys(_home(kind, name), part)


def check_name(kind: str, name: str, key: str | None = None) -> None:
    """Raise InputError, naming `key`, where there is no part of this name."""
    one_of(key or f"{kind}.name", name, names(kind))


def _module(kind: str, name: str) -> ModuleType:
    return import_module(_home(kind, name))


def _home(kind: str, name: str) -> str:
    return f"tdpm_cli.{KINDS[kind]}.{name.replace('-', '_')}"
