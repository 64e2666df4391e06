"""Devices and number formats."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def resolve(precision: str, where: torch.device) -> str:
    """ "auto" → "bf16" on a GPU that computes in it, else "fp32"."""
    if precision != "auto":
        return precision
    return "bf16" if where.type == "cuda" and torch.cuda.is_bf16_supported() else "fp32"


def autocast(precision: str, where: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What opens the context in which losses are computed."""
    if precision == "fp32":
        return nullcontext
    return lambda: torch.autocast(where.type, dtype=torch.bfloat16)
