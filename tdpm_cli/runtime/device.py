"""Devices, number formats, and compiling: what this machine does well, found by trying."""

import os
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch
from torch import nn

from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError

GAIN = 1.15  # how much faster bf16 must be to be chosen


def device() -> torch.device:
    """The accelerator where there is one, else the CPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def has_bf16(where: torch.device) -> bool:
    """Whether a device computes in bf16 by itself; CPUs all do, in software if need be."""
    return where.type != "cuda" or torch.cuda.is_bf16_supported(including_emulation=False)


def check(key: str, precision: str, where: torch.device) -> None:
    """Raise InputError, naming the key, for a number format that the device lacks."""
    if precision == "bf16" and not has_bf16(where):
        name = torch.cuda.get_device_name(where)
        raise InputError(f"{key} is 'bf16', which {name} lacks; accepted here: auto, fp32")


def fastest(work: Callable[[], object], where: torch.device) -> str:
    """ "bf16" where `work` is faster by GAIN in it on this machine, by the best of two runs of each; else "fp32"."""
    if not has_bf16(where):
        return "fp32"
    best = {"fp32": float("inf"), "bf16": float("inf")}
    for _ in range(3):  # the first round warms up, yet a slow bf16 shows in it
        for kind in best:
            with autocast(kind, where)():
                begin = time.perf_counter()
                work()
                synchronise(where)
                best[kind] = min(best[kind], time.perf_counter() - begin)
        if best["bf16"] > 3 * best["fp32"]:
            break
    return "bf16" if best["fp32"] > GAIN * best["bf16"] else "fp32"


def autocast(precision: str, where: torch.device) -> Callable[[], AbstractContextManager[object]]:
    """What opens the context in which losses are computed. In float32, products on a GPU are TF32."""
    if precision == "fp32":
        torch.set_float32_matmul_precision("high")
        return nullcontext
    return lambda: torch.autocast(where.type, dtype=torch.bfloat16)


def describe(precision: str, where: torch.device) -> str:
    """The number format in words."""
    return "fp32 (products and convolutions in TF32)" if precision == "fp32" and where.type == "cuda" else precision


def compile_network(network: nn.Module, work: Callable[[], object]) -> bool:
    """Compile a network in place and run `work`, which calls it, once; where that fails, go on without, and say so.
    Return whether it is compiled."""
    begin = time.perf_counter()
    try:
        network.compile(dynamic=False)
        work()
    except Exception as error:  # whatever a compiler raises
        network._compiled_call_impl = None
        reason = str(error).strip().splitlines() or [type(error).__name__]
        say(f"note: torch.compile failed ({reason[0]}); going on without it")
        return False
    say(f"compiled in {time.perf_counter() - begin:.0f} s")
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
    """Wait until the device has done all that was asked of it."""
    if where.type == "cuda":
        torch.cuda.synchronize(where)
