"""Devices, number formats and compilation, chosen by trying what is fastest on this machine."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Literal

import torch
from torch import nn

from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError

MIN_SPEEDUP = 1.15  # of bf16 over fp32, to be chosen


def device() -> torch.device:
    """Return the GPU if there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(where: torch.device) -> bool:
    """Return whether a device supports bf16. Every CPU does, some of them in software."""
    return where.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def check(key: str, precision: str, where: torch.device) -> None:
    """Raise InputError, naming the key, for a number format that the device does not support."""
    if precision == "bf16" and not has_bf16(where):
        name = torch.cuda.get_device_name(where)
        raise InputError(f"{key} is 'bf16', which {name} does not support; accepted: auto, fp32")


def fastest(work: Callable[[], object], where: torch.device) -> Literal["fp32", "bf16"]:
    """Return "bf16" if `work` is faster in it by MIN_SPEEDUP on this machine, best of three runs each; else "fp32"."""
    if not has_bf16(where):
        return "fp32"
    best = {"fp32": float("inf"), "bf16": float("inf")}
    for _ in range(3):  # the first round warms up, but already shows a very slow bf16
        for kind in best:
            with autocast(kind, where)():
                begin = time.perf_counter()
                work()
                synchronise(where)
                best[kind] = min(best[kind], time.perf_counter() - begin)
        if best["bf16"] > 3 * best["fp32"]:
            break
    return "bf16" if best["fp32"] > MIN_SPEEDUP * best["bf16"] else "fp32"


def autocast(precision: str, where: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """Return the context for computing in a number format. For fp32, this allows TF32 on GPUs in this process."""
    if precision == "fp32":
        torch.set_float32_matmul_precision("high")
        return nullcontext
    return lambda: torch.autocast(where.type, dtype=torch.bfloat16)


def describe(precision: str, where: torch.device) -> str:
    """Return the number format as text."""
    return "fp32 (products and convolutions in TF32)" if precision == "fp32" and where.type == "cuda" else precision


def compile_network(network: nn.Module, work: Callable[[], object]) -> bool:
    """Compile a network in place, and run `work`, which calls it, once; return whether that succeeded.

    After a failure the network runs uncompiled, and tdpm prints the reason.
    """
    begin = time.perf_counter()
    try:
        network.compile(dynamic=False)
        work()
    except Exception as error:  # whatever a compiler raises
        network._compiled_call_impl = None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        print_line(f"note: torch.compile failed ({reason[0]}); continuing without it")
        return False
    print_line(f"compiled in {time.perf_counter() - begin:.0f} s")
    return True


def free_memory(where: torch.device) -> int:
    """Return the bytes of free memory of a device or, for the CPU, of the machine; 0 if unknown."""
    if where.type == "cuda":
        return int(torch.cuda.mem_get_info(where)[0])
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (ValueError, OSError):
        return 0


def synchronise(where: torch.device) -> None:
    """Wait until the device has finished all work."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
