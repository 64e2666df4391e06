"""Checks of values against the keys of a section or of command-line options."""

import copy
import re
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from typing import TypeVar

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from tdpm_cli.config.signatures import Key, Keys
from tdpm_cli.runtime.errors import InputError, nearest

STRICT = ConfigDict(strict=True, allow_inf_nan=False)
Model = TypeVar("Model", bound=BaseModel)


def check(accepted: Keys, values: Mapping[str, object], section: str, others: Sequence[str] = ()) -> dict[str, object]:
    """Check the values of a section and return them converted. Section "--" stands for command-line options.

    `others` are keys of the section that are checked elsewhere, such as `name`. Raises InputError for the first key
    that is unknown or missing, or whose value has a wrong type or is out of range.
    """
    check_known(values, [*others, *accepted], section)
    for name, key in accepted.items():
        if name not in values and key.default is MISSING:
            raise InputError(f"{full_name(section, name)} is missing; the preset must set it")
    return {name: _converted(accepted[name], value, full_name(section, name)) for name, value in values.items()}


def complete(
    accepted: Keys, values: Mapping[str, object], section: str, others: Sequence[str] = ()
) -> dict[str, object]:
    """Check as `check` does, and fill in every default."""
    checked = check(accepted, values, section, others)
    return {name: checked.get(name, copy.copy(key.default)) for name, key in accepted.items()}


def validated(model: type[Model], values: Mapping[str, object], section: str) -> Model:
    """Fill a section's model with values. Raises InputError for the first key or value that is not accepted."""
    check_known(values, list(model.model_fields), section)
    for key, field in model.model_fields.items():
        if key not in values and field.is_required():
            raise InputError(f"{full_name(section, key)} is missing; the preset must set it")
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        first = error.errors()[0]
        name, *inside = first["loc"]
        value = values[str(name)]
        raise _refusal(full_name(section, str(name)), value, inside, first["input"], first["msg"]) from None


def check_known(values: Mapping[str, object], accepted: Sequence[str], section: str = "") -> None:
    """Raise InputError for a key that is not accepted; suggest the nearest that is."""
    for key in values:
        if key not in accepted:
            raise InputError(
                f"{full_name(section, key)}: no such key{nearest(str(key), accepted)} "
                f"Accepted{'' if section in ('', '--') else f' in {section}'}: {', '.join(accepted) or 'none'}."
            )


def full_name(section: str, key: str) -> str:
    """Return a key as users write it: "train.batch" in a preset, "--prior-guidance-scale" as an option."""
    if section == "--":
        return section + key.replace("_", "-")
    return f"{section}.{key}" if section else key


def _converted(key: Key, value: object, name: str) -> object:
    try:
        return TypeAdapter[object](key.type, config=STRICT).validate_python(value)
    except ValidationError as error:
        first = error.errors()[0]
        raise _refusal(name, value, first["loc"], first["input"], first["msg"]) from None


def _refusal(name: str, value: object, inside: Sequence[int | str], actual: object, message: str) -> InputError:
    """Return the error for a wrong value, or for what is wrong at `inside` in it."""
    inside = inside if isinstance(value, list | Mapping) else ()
    where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in inside)
    return InputError(f"{name}{where} is {actual!r}: {_rephrased(message)}")


def _rephrased(message: str) -> str:
    """Return a message of pydantic, such as "Input should be a valid integer", as the end of a sentence of tdpm."""
    message = re.sub(r"^(\w+ )?\w+ should ", "it must ", message).replace(" after validation", "")
    message = message.removeprefix("Value error, ").removeprefix("Assertion failed, ")
    return {"Field required": "it is missing", "Extra inputs are not permitted": "no such key"}.get(message, message)
