"""Ranges for part signatures: the signature is the schema that a preset is checked against."""

from typing import TYPE_CHECKING, Annotated, TypedDict

from annotated_types import Ge, Gt, Interval, MinLen

if TYPE_CHECKING:
    from torch import Tensor

MOST = 1 << 20  # of anything that is built, drawn or held at a time; more is a mistake, or a trap
Positive = Annotated[int, Interval(ge=1, le=MOST)]
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
