"""Values against the keys that accept them: of a preset's section, or of options."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tdpm_cli.config.signatures import Key, Keys
from tdpm_cli.runtime.errors import InputError, nearest

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
Model = TypeVar("Model", bound=BaseModel)


def check(accepted: Keys, given: Mapping[str, Any], section: str, beside: Sequence[str] = ()) -> dict[str, Any]:
    """Check the values of a section, or, where that is "--", of options; return them converted.

    `beside` are keys of the same section that were taken out before, such as `name`. Raises InputError for the first
    key that is not known, that is missing, or whose value is of another type or out of range.
    """
    known(given, [*beside, *accepted], section)
    for name, key in accepted.items():
        if name not in given and key.default is MISSING:
            raise InputError(f"{spelled(section, name)} is missing; the preset must set it")
    return {name: _converted(accepted[name], value, spelled(section, name)) for name, value in given.items()}


def complete(accepted: Keys, given: Mapping[str, Any], section: str, beside: Sequence[str] = ()) -> dict[str, Any]:
    """Like `check`, with every default filled in."""
    checked = check(accepted, given, section, beside)
    return {name: checked.get(name, copy.copy(key.default)) for name, key in accepted.items()}


def validated(model: type[Model], values: Mapping[str, Any], section: str) -> Model:
    """Fill a section's model with values. Raises InputError for the first key or value that is not accepted."""
    known(values, list(model.model_fields), section)
    for key, field in model.model_fields.items():
        if key not in values and field.is_required():
            raise InputError(f"{spelled(section, key)} is missing; the preset must set it")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name, *inside = first["loc"]
        value = values[str(name)]
        raise _refusal(spelled(section, str(name)), value, inside, first["input"], first["msg"]) from None


def known(given: Mapping[str, Any], accepted: Sequence[str], section: str = "") -> None:
    """Raise InputError for a key that is not accepted, with the nearest that is."""
    for key in given:
        if key not in accepted:
            raise InputError(
                f"{spelled(section, key)}: no such key{nearest(str(key), accepted)} "
                f"Accepted{'' if section in ('', '--') else f' in {section}'}: {', '.join(accepted) or 'none'}."
            )


def spelled(section: str, key: str) -> str:
    """A key as its user writes it: "train.batch" in a preset, "--prior-guidance-scale" among options."""
    if section == "--":
        return section + key.replace("_", "-")
    return f"{section}.{key}" if section else key


def _converted(key: Key, value: Any, name: str) -> Any:
    try:
        return TypeAdapter(key.type, config=STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refusal(name, value, first["loc"], first["input"], first["msg"]) from None


def _refusal(name: str, value: Any, inside: Sequence[int | str], found: object, message: str) -> InputError:
    """The error for a wrong value, or for the part of it at `inside`."""
    inside = inside if isinstance(value, list | Mapping) else ()
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in inside)
    return InputError(f"{name}{where} is {found!r}: {message.replace('Input should be', 'it must be')}")
