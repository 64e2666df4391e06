"""Types of values in presets: plain values, ranges of numbers, and what data and users condition on."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypedDict

from annotated_types import Ge, Gt, Interval, MinLen

if TYPE_CHECKING:
    from pydantic import GetCoreSchemaHandler, GetJsonSchemaHandler
    from pydantic.json_schema import JsonSchemaValue
    from pydantic_core import CoreSchema
    from torch import Tensor

_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}
_SECONDS = {"s": 1, "min": 60, "h": 3600, "d": 86400}
_COUNT = r"(\d+(?:\.\d+)?)([kM]?)"

Value: TypeAlias = "bool | int | float | str | list[Value] | Mapping[str, Value] | None"  # as YAML holds it
PlainConfig: TypeAlias = "dict[str, Value]"  # the sections of a preset before validation

LARGEST = 1 << 20  # of sizes and counts in presets; a larger one is a mistake or an attack
Positive = Annotated[int, Interval(ge=1, le=LARGEST)]
Natural = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Probability = Annotated[float, Interval(ge=0, lt=1)]
Positives = Annotated[list[Positive], MinLen(1)]


def parse_count(value: object) -> object:
    """Read "200k" as 200000 and "2M" as 2000000; return anything else unchanged."""
    match = re.fullmatch(_COUNT, value) if isinstance(value, str) else None
    if not match:
        return value
    number = float(match[1]) * _UNITS[match[2]]
    return int(number) if number == int(number) else value


def parse_seconds(text: str) -> float | None:
    """Read "90s", "10min", "8h" or "2d" as seconds; return None for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|min|h|d)", text.strip())
    return float(match[1]) * _SECONDS[match[2]] if match else None


@dataclass(frozen=True)
class WithUnit:
    """Marks an integer that may be written with a unit: 200k or 2M."""

    def __get_pydantic_core_schema__(self, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.no_info_before_validator_function(parse_count, handler(source))

    def __get_pydantic_json_schema__(self, schema: "CoreSchema", handler: "GetJsonSchemaHandler") -> "JsonSchemaValue":
        return {"anyOf": [handler(schema), {"type": "string", "pattern": f"^{_COUNT}$"}]}


@dataclass(frozen=True)
class External:
    """Marks a key whose value tdpm opens; see `external.py`."""


@dataclass(frozen=True)
class Matching:
    """Restricts a text to a regular expression."""

    pattern: str

    def __get_pydantic_core_schema__(self, source: object, handler: "GetCoreSchemaHandler") -> "CoreSchema":
        from pydantic_core import core_schema

        return core_schema.str_schema(pattern=self.pattern, strict=True)


ExternalPath = Annotated[str, External()]  # a file or folder of this machine
ExternalName = Annotated[str, External()]  # a folder, or OWNER/NAME on a hub
PlainName = Annotated[str, Matching(r"^\w[\w.-]*$")]  # of a file or folder, without its path
Program = Annotated[str, Matching("^[0-9a-f]{64}$")]  # the SHA-256 of a program that this machine trusts
Count = Annotated[int, Ge(0), WithUnit()]
PositiveCount = Annotated[int, Ge(1), WithUnit()]


class Truncation(TypedDict, total=False):
    """A truncation point, in one of these units."""

    step: int
    sigma: float
    log_snr: float
    nats: float  # that it asks of a prior; the step follows from the covariance of the data


class RawCondition(TypedDict, total=False):
    """Conditions of n examples as data or users state them, before a condition encodes them."""

    label: "Tensor"  # int64 [n]
    captions: list[tuple[str, ...]]  # n tuples of texts
    low: "Tensor"  # uint8 [n, C, h, w]: smaller images to enlarge
    raw: "Tensor"  # [n, *shape]: the examples themselves
