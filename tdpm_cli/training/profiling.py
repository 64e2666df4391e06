"""Profile a step by operator, and measure the machine's peak."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch.autograd.profiler_util import FunctionEventAvg
from torch.profiler import ProfilerActivity

from tdpm_cli.runtime.device import autocast, synchronise
from tdpm_cli.runtime.files import replacing

MATRIX_SIDE = {"cuda": 8192, "cpu": 1536}  # of the matrices whose product is timed: large enough for the peak
OPERATORS_SHOWN = 12


@dataclass(frozen=True)
class Profile:
    """The seconds of a step without the profiler, and its operators: (name, calls, own seconds)."""

    seconds: float
    operators: list[tuple[str, int, float]]

    @property
    def rows(self) -> list[dict[str, str]]:
        """The slowest operators, as rows of a table."""
        total = sum(seconds for _, _, seconds in self.operators) or 1.0
        return [
            {"operator": name, "calls": f"{calls:,}", "ms": f"{1000 * seconds:.1f}", "share": f"{seconds / total:.1%}"}
            for name, calls, seconds in self.operators[:OPERATORS_SHOWN]
        ]


def profile(step: Callable[[], object], where: torch.device, trace: Path | None) -> Profile:
    """Run a step three times: to warm up, timed, and profiled. Write the last one to `trace`, a Chrome trace."""
    step()
    synchronise(where)
    begin = time.perf_counter()
    step()
    synchronise(where)
    seconds = time.perf_counter() - begin
    activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * (where.type == "cuda")
    with torch.profiler.profile(activities=activities) as profiler:
        step()
        synchronise(where)
    if trace is not None:
        with replacing(trace) as part:
            profiler.export_chrome_trace(str(part))
    own: Callable[[FunctionEventAvg], float] = lambda event: (
        event.self_device_time_total if where.type == "cuda" else event.self_cpu_time_total
    )
    events = sorted(profiler.key_averages(), key=own, reverse=True)
    return Profile(seconds, [(event.key, event.count, own(event) / 1e6) for event in events if own(event) > 0])


def matrix_peak(precision: str, where: torch.device) -> float:
    """Return the operations a second of a large matrix product in this number format, the best of several runs.

    A multiply-add counts as two operations.
    """
    side = MATRIX_SIDE.get(where.type, MATRIX_SIDE["cpu"])
    a, b = torch.randn(2, side, side, device=where).unbind()
    best = float("inf")
    with autocast(precision, where)():
        if precision == "bf16":
            a, b = a.bfloat16(), b.bfloat16()
        for _ in range(6):
            begin = time.perf_counter()
            a @ b
            synchronise(where)
            best = min(best, time.perf_counter() - begin)
    return 2 * side**3 / best
