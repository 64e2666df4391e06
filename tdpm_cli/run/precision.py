"""Devices and number formats."""

import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def free_memory(where: torch.device) -> int:
    """Bytes of memory that nothing uses now; 0 where the system does not tell."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def resolve(precision: str, where: torch.device) -> str:
    """ "auto" → "bf16" where the GPU, or the CPU by AVX-512, computes in it, else "fp32"."""
    if precision != "auto":
        return precision
    if where.type == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    in_hardware = getattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)  # torch has no public name for it
    return "bf16" if in_hardware() else "fp32"


def autocast(precision: str, where: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What opens the context in which losses are computed."""
    if precision == "fp32":
        return nullcontext
    return lambda: torch.autocast(where.type, dtype=torch.bfloat16)
