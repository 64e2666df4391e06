"""Compare times on a machine that other programs may use: alternating rounds, and medians.

Work of a single thread is timed by the CPU clock of the process, which excludes other programs; everything else by the
wall clock.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

from tdpm_cli.runtime.cores import cores

Work = Callable[[], object]


def medians(works: Mapping[str, Work], rounds: int, warm: int = 1) -> dict[str, float]:
    """Return the median seconds of each work over rounds that run each once, after `warm` rounds that do not count."""
    return medians_of({name: partial(seconds, work) for name, work in works.items()}, rounds, warm)


def medians_of(timers: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> dict[str, float]:
    """Return `medians` of works that measure their own seconds."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(warm + rounds):
        for name, timer in timers.items():
            times[name].append(timer())
    return {name: statistics.median(values[warm:]) for name, values in times.items()}


def seconds(work: Work) -> float:
    """Return the seconds of a work."""
    begin = clock()
    work()
    synchronise()
    return clock() - begin


@contextmanager
def timed(times: list[tuple[float, float]]) -> Iterator[None]:
    """Append the wall-clock seconds of a block, and the CPU seconds of it and of the processes it started."""
    now = lambda: (time.perf_counter(), sum(os.times()[:4]))
    begin = now()
    yield
    wall, cpu = (after - before for after, before in zip(now(), begin, strict=True))
    times.append((wall, cpu))


def run_quietly(command: Sequence[str], stdout: int | None = subprocess.DEVNULL, **environment: str) -> None:
    """Run a command and hide its messages. If it fails, exit with the end of its error output."""
    process = subprocess.run(
        command, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} exited with status {process.returncode}:\n{process.stderr[-2000:]}")


def clock() -> float:
    """Return the CPU seconds of this process if it computes with one thread, else wall-clock seconds."""
    import torch

    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def synchronise() -> None:
    """Wait until the GPU, if there is one, has finished."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> str:
    """Describe the machine."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    load = os.getloadavg()[0]
    return (
        f"{names[0] if names else platform.processor()}, {cores()} cores, "
        f"threads used: {torch.get_num_threads()}, load {load:.1f}, PyTorch {torch.__version__}"
    )


def row(name: str, value: str, ratio: float | None = None) -> None:
    """Print a row: name, figure, and ratio to the reference."""
    print(f"{name:44} {value:>16}" + ("" if ratio is None else f"   ratio {ratio:6.2f}"), flush=True)
