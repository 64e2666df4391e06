"""What stored configs name outside themselves: files, folders, names on a hub. They are opened only if confirmed.

A file of weights, a run, a manifest and a dataset may come from anyone. A value in them is confirmed if the user allows
all of them (`--allow-external`), sets the key (`--set`), or if `remember` recorded it on this machine: `tdpm train`
records what its preset and options name. `guard` marks the components of a stored config that are not confirmed, and
`sampling/build.py`, the only place that builds components, rejects them.
"""

import hashlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, get_args

from platformdirs import user_data_path

from tdpm_cli.config import registry
from tdpm_cli.config.types import External
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text

if TYPE_CHECKING:
    from tdpm_cli.config.schema import Component, Config

MODEL, SOURCE, WEIGHTS = "model", "source", "weights"  # keys of manifests, of latents, and of image-text features
COMPONENTS = ("space", "condition", "schedule", "backbone", "prior", "discriminator", "encoder")
SECTIONS = {"data": "dataset", **{section: section for section in COMPONENTS}}  # of components -> their kind
DATA_PATH = "data.path"  # a key of every dataset


@dataclass(frozen=True)
class Confirmation:
    """What the user confirms on the command line: everything, or the keys that assignments "section.key=value" set."""

    everything: bool = False
    assignments: Sequence[str] = ()

    @property
    def keys(self) -> frozenset[str]:
        """The keys that assignments set."""
        return frozenset(assignment.partition("=")[0].strip() for assignment in self.assignments)

    def check(self) -> None:
        """Raise InputError for an assignment to a key that names nothing to open: the model depends on it."""
        if other := sorted(self.keys - set(keys())):
            raise InputError(
                f"--set {other[0]}: the model was trained with its own value; accepted: {', '.join(keys())}"
            )


NOTHING = Confirmation()


def keys() -> list[str]:
    """Return every key of a preset whose value tdpm opens, such as "space.autoencoder"."""
    listed = [f"{section}.{key}" for section, kind in SECTIONS.items() for name in registry.names(kind)
             for key in of_component(kind, name)]  # fmt: skip
    return list(dict.fromkeys([DATA_PATH, *listed]))


def of_component(kind: str, name: str) -> list[str]:
    """Return the keys of a component whose values tdpm opens."""
    return [key for key, value in registry.keys(kind, name).items() if is_external(value.type)]


def of_training() -> list[str]:
    """Return the keys of section `train` whose values `tdpm train` opens."""
    from tdpm_cli.config.settings import TrainConfig

    return [key for key, field in TrainConfig.model_fields.items() if is_external(field.annotation)]


def is_external(kind: object) -> bool:
    """Return whether a type, such as `ExternalPath | None`, is marked as naming something to open."""
    return any(isinstance(item, External) for item in _metadata(kind))


def _metadata(kind: object) -> list[object]:
    return [item for part in get_args(kind) for item in (part, *_metadata(part))]


def guard(config: "Config", where: str, confirmation: Confirmation = NOTHING) -> "Config":
    """Return a config, which is stored in `where`, whose components with unconfirmed values cannot be built."""
    guarded = {}
    for section, kind in SECTIONS.items():
        component: Component | None = getattr(config, section)
        if component is None:
            continue
        values = {} if confirmation.everything else _values(component, section, kind)
        open_values = {key: value for key, value in values.items()
                       if key not in confirmation.keys and not is_remembered(key, value)}  # fmt: skip
        rejection = _rejection(where, open_values) if open_values else None
        guarded[section] = component.model_copy(update={"rejection": rejection})
    return config.model_copy(update=guarded)


def check_training(config: "Config", where: str, confirmation: Confirmation) -> None:
    """Raise InputError if `where`, the config of a run, names trained models to start from that are not confirmed."""
    open_values = {key: value for key, value in _training_values(config).items()
                   if key not in confirmation.keys and not is_remembered(key, value)}  # fmt: skip
    if open_values and not confirmation.everything:
        raise InputError(_rejection(where, open_values))


def _training_values(config: "Config") -> dict[str, str]:
    values = config.train.model_dump(include=set(of_training()))
    return {f"train.{key}": str(value) for key, value in values.items() if value is not None}


def _values(component: "Component", section: str, kind: str) -> dict[str, str]:
    """Return the values of a component that name something to open, by their full keys."""
    named = {key: value for key, value in component.to_dict().items()
             if key in of_component(kind, component.name) or f"{section}.{key}" == DATA_PATH}  # fmt: skip
    return {f"{section}.{key}": str(value) for key, value in named.items() if value is not None}


def require(key: str, value: str, where: str, confirmation: Confirmation, option: str) -> str:
    """Return a value that `where` contains. Raises InputError, naming `option`, unless it is confirmed."""
    if confirmation.everything or is_remembered(key, value):
        return value
    raise InputError(
        f"{where} names {key} {value!r}, which was not opened: confirm it with --allow-external, or use {option}"
    )


def _rejection(where: str, values: Mapping[str, str]) -> str:
    named = ", ".join(f"{key}={value}" for key, value in values.items())
    keys = " ".join(f"--set {key}=…" for key in values)
    return (
        f"{where} names {named}, which tdpm did not open, because a stored config may come from anyone. If you trust "
        f"it, add --allow-external, or name your own with {keys}"
    )


def remember(values: Mapping[str, str]) -> None:
    """Record that the user of this machine named these values, by key. Without a place to write, record nothing."""
    for key, value in values.items():
        with suppress(InputError):
            if not (place := _place(key, value)).is_file():
                write_text(place, f"{key}={_identity(value)!a}\n")  # a name may have any bytes


def remember_config(config: "Config") -> None:
    """Record what the config of a run names: the user named its preset."""
    remember(_training_values(config))
    for section, kind in SECTIONS.items():
        if component := getattr(config, section):
            remember(_values(component, section, kind))


def is_remembered(key: str, value: str) -> bool:
    """Return whether the user of this machine has named this value."""
    return _place(key, value).is_file()


def _place(key: str, value: str) -> Path:
    digest = hashlib.sha256(f"{key}={_identity(value)}".encode(errors="surrogateescape")).hexdigest()
    return user_data_path("tdpm") / "confirmed" / f"{digest}.txt"


def _identity(value: str) -> str:
    """Return the absolute path of what exists, so that a name means the same in every folder; or else the name."""
    try:
        return str(Path(value).resolve()) if Path(value).exists() else value
    except (OSError, ValueError):  # a name that no file can have
        return value
