"""The registry of components: everything that a preset or an option can name, one file each, by kind.

A component is the one class or function in the `__all__` of its file. Its name is the file's name with hyphens for
underscores; `ALIASES` in the file lists other names. Its positional parameters are what tdpm passes in. Its
keyword-only arguments are the keys that a preset may set, and their annotations are the schema; `signatures` reads
them from the source, without importing it. The first line of the file's docstring states the component's purpose.

    tdpm_cli/engine/samplers/heun.py    ->  sample.sampler: heun

No other line changes when a file is added.
"""

import pkgutil
from functools import cache
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

from tdpm_cli.config import signatures
from tdpm_cli.runtime.errors import one_of

KINDS = {  # kind -> the package whose modules are its components; packages inside it hold what they share
    "dataset": "data.datasets",
    "space": "spaces",
    "condition": "conditioning",
    "text_encoder": "conditioning.text_encoders",
    "schedule": "engine.schedules",
    "backbone": "models.backbones",
    "prior": "models.priors",
    "discriminator": "models.discriminators",
    "encoder": "models.encoders",
    "loss": "engine.losses",
    "objective": "engine.objectives",
    "sampler": "engine.samplers",
    "features": "evaluation.features",
    "metric": "evaluation.metrics",
    "importer": "convert.importers",
    "export": "export.targets",
}
Default = TypeVar("Default")
SNAKE_CASE = {"sampler", "metric"}  # kinds whose names keep the underscores that the literature gives them


def names(kind: str) -> list[str]:
    """Return the names of the components of a kind, such as "prior", without importing them."""
    spell = str if kind in SNAKE_CASE else lambda name: name.replace("_", "-")
    return sorted(spell(module) for module in _modules(tuple(_package(kind).__path__)))


def aliases(kind: str) -> dict[str, str]:
    """Return a mapping from the other names of a kind's components to their own names."""
    none: tuple[str, ...] = ()
    return {alias: name for name in names(kind) for alias in signatures.constant(_home(kind, name), "ALIASES", none)}


def resolve(kind: str, name: object, key: str | None = None) -> str:
    """Return a component's own name for its name or an alias. Raises InputError, naming `key`, for any other name."""
    known = names(kind)
    if isinstance(name, str) and name in known:
        return name
    other = aliases(kind)
    one_of(key or f"{kind}.name", name, [*known, *other])
    return other[str(name)]


def load(kind: str, name: str, key: str | None = None) -> Any:
    """Import and return a component. Raises InputError, naming `key`, for an unknown name."""
    module = _module(kind, resolve(kind, name, key))
    (component,) = module.__all__
    return getattr(module, component)


def keys(kind: str, name: str, key: str | None = None) -> signatures.Keys:
    """Return the keys of a component, without importing it. Raises InputError as `load` does."""
    home = _home(kind, resolve(kind, name, key))
    (component,) = signatures.exported(home)
    return signatures.keys(home, component)


def attribute(kind: str, name: str, attribute: str) -> object:
    """Return a class attribute of a component, such as a prior's `learns`, without importing it."""
    home = _home(kind, resolve(kind, name))
    (component,) = signatures.exported(home)
    return signatures.attribute(home, component, attribute)


def all_keys(kind: str) -> signatures.Keys:
    """Return the keys of all components of a kind, by name."""
    return {key: value for name in names(kind) for key, value in keys(kind, name).items()}


def summary(kind: str, name: str) -> str:
    """Return the first line of a component's file: its purpose."""
    return signatures.summary(_home(kind, resolve(kind, name)))


def constant(kind: str, name: str, key: str, default: Default) -> Default:
    """Return a constant of a component's file, without importing it; `default` if the file has no such constant."""
    return signatures.constant(_home(kind, resolve(kind, name)), key, default)


def add_folder(kind: str, folder: Path) -> None:
    """Add the files of a folder to the components of a kind."""
    _package(kind).__path__.append(str(folder))


def recognise(path: Path, preferred: str) -> str:
    """Return the dataset that reads what `path` holds: the preferred one where it can, else the first that can.

    A dataset's file declares this with a function `recognises(path)`. `images`, which takes any folder, is asked last.
    """
    known = names("dataset")
    if preferred in known and path.exists():
        for name in sorted(known, key=lambda name: (name == "images", name != preferred)):
            recognises = getattr(_module("dataset", name), "recognises", None)
            if recognises and recognises(path):
                return name
    return preferred


@cache
def _modules(folders: tuple[str, ...]) -> list[str]:
    """Return the modules in these folders. Each list of folders is scanned once; `add_folder` makes another list."""
    return [module.name for module in pkgutil.iter_modules(folders) if not module.ispkg]


def _package(kind: str) -> ModuleType:
    return import_module(f"tdpm_cli.{KINDS[kind]}")


def _module(kind: str, name: str) -> ModuleType:
    return import_module(_home(kind, name))


def _home(kind: str, name: str) -> str:
    return f"tdpm_cli.{KINDS[kind]}.{name.replace('-', '_')}"
