"""JSON that is not trusted: manifests and logs, read by a schema, so that damage is named."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, TypeVar

from annotated_types import Ge
from pydantic import BaseModel, ConfigDict, ValidationError

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, read_json, read_regular

Natural = Annotated[int, Ge(0)]


class Record(BaseModel):
    """The schema of a JSON object. Keys that it does not declare may have any value."""

    model_config = ConfigDict(strict=True, extra="allow", protected_namespaces=())


Checked = TypeVar("Checked", bound=Record)


def read_record(path: Path, schema: type[Record], advice: str, upgrade: Callable[[Json], Json] = dict) -> Json:
    """Return a JSON object, after `upgrade` has renamed its older keys.

    Raises InputError, ending in `advice`, for a missing file and for one that does not match the schema.
    """
    content = read_json(path, advice)
    try:
        content = upgrade(content)
    except (TypeError, ValueError, AttributeError, RecursionError) as error:
        check_record(content, schema, str(path), advice)  # names the key
        raise InputError(f"{path}: damaged ({error}); {advice}") from None
    check_record(content, schema, str(path), advice)
    return content


def check_record(content: object, schema: type[Checked], where: str, advice: str) -> Checked:
    """Return an object as its schema describes it. Raises InputError, naming the first key that does not match."""
    try:
        return schema.model_validate(content)
    except (ValidationError, RecursionError) as error:
        raise InputError(f"{where}: damaged, {_first(error)}; {advice}") from None


def read_lines(path: Path, schema: type[Record], advice: str) -> list[Json]:
    """Return the objects of a JSON Lines file, without an incomplete last line. Raises InputError for damage."""
    try:
        text = read_regular(path).decode("utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}); {advice}") from None
    lines = []
    for number, line in enumerate(text.split("\n")[:-1], 1):
        where = f"{path}, line {number:,}"
        try:
            content = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise InputError(f"{where}: damaged, not JSON ({error}); {advice}") from None
        check_record(content, schema, where, advice)
        lines.append(dict(content))
    return lines


def _first(error: ValidationError | RecursionError) -> str:
    if isinstance(error, RecursionError):
        return "nested too deeply"
    first = error.errors()[0]
    name = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"]).lstrip(".")
    value = "" if first["type"] == "missing" else f" is {repr(first['input'])[:80]}"
    return f"{name or 'the content'}{value}: {first['msg']}"
