"""Types of values in presets: plain values, ranges of numbers, and what data and users condition on."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, TypeAlias, TypedDict

from annotated_types import Ge, Gt, Interval, MinLen

if TYPE_CHECKING:
    from torch import Tensor

Value: TypeAlias = "bool | int | float | str | list[Value] | Mapping[str, Value] | None"  # as YAML holds it

LARGEST = 1 << 20  # of sizes and counts in presets; a larger one is a mistake or an attack
Positive = Annotated[int, Interval(ge=1, le=LARGEST)]
Natural = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
Probability = Annotated[float, Interval(ge=0, lt=1)]
Positives = Annotated[list[Positive], MinLen(1)]


class RawCondition(TypedDict, total=False):
    """Conditions of n examples as data or users state them, before a condition encodes them."""

    label: "Tensor"  # int64 [n]
    captions: list[tuple[str, ...]]  # n tuples of texts
    low: "Tensor"  # uint8 [n, C, h, w]: smaller images to enlarge
    raw: "Tensor"  # [n, *shape]: the examples themselves
