"""Times of things beside one another on a machine that others may use too: rounds in turn, and medians.

What one thread computes is timed by the processor's clock for this process, which stands still while others are served;
everything else by the clock on the wall.
"""

import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial

Work = Callable[[], object]


def medians(works: Mapping[str, Work], rounds: int, warm: int = 1) -> dict[str, float]:
    """Seconds of each work: the median over rounds in which each runs once, after `warm` rounds that do not count."""
    return medians_of({name: partial(seconds, work) for name, work in works.items()}, rounds, warm)


def medians_of(timers: Mapping[str, Callable[[], float]], rounds: int, warm: int = 1) -> dict[str, float]:
    """`medians` of works that tell the seconds themselves."""
    times: dict[str, list[float]] = {name: [] for name in timers}
    for _ in range(warm + rounds):
        for name, timer in timers.items():
            times[name].append(timer())
    return {name: statistics.median(values[warm:]) for name, values in times.items()}


def seconds(work: Work) -> float:
    """What a work takes."""
    begin = clock()
    work()
    synchronise()
    return clock() - begin


@contextmanager
def timed(times: list[tuple[float, float]]) -> Iterator[None]:
    """Add the seconds that a block takes, and those of CPU that it and the processes it started took."""
    now = lambda: (time.perf_counter(), sum(os.times()[:4]))
    begin = now()
    yield
    wall, cpu = (after - before for after, before in zip(now(), begin, strict=True))
    times.append((wall, cpu))


def run_quietly(command: Sequence[str], stdout: int | None = subprocess.DEVNULL, **environment: str) -> None:
    """Run a command without its errors and progress; where it fails, end with the last of them."""
    done = subprocess.run(command, stdout=stdout, stderr=subprocess.PIPE, text=True, env={**os.environ, **environment})
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with status {done.returncode}:\n{done.stderr[-2000:]}")


def clock() -> float:
    """Seconds: of this process alone where one thread computes, else on the wall."""
    import torch

    alone = not torch.cuda.is_available() and torch.get_num_threads() == 1
    return time.process_time() if alone else time.perf_counter()


def synchronise() -> None:
    """Wait for the accelerator, where there is one."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def machine() -> str:
    """The machine in words."""
    import torch

    if torch.cuda.is_available():
        return f"{torch.cuda.get_device_name()}, PyTorch {torch.__version__}"
    with open("/proc/cpuinfo") as file:
        names = [line.split(":")[1].strip() for line in file if line.startswith("model name")]
    load = os.getloadavg()[0]
    return (
        f"{names[0] if names else platform.processor()}, {len(os.sched_getaffinity(0))} cores, "
        f"threads used: {torch.get_num_threads()}, load {load:.1f}, PyTorch {torch.__version__}"
    )


def row(what: str, value: str, ratio: float | None = None) -> None:
    """Print a line of figures."""
    print(f"{what:44} {value:>16}" + ("" if ratio is None else f"   ratio {ratio:6.2f}"), flush=True)
