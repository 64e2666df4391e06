"""A training step, compared with the paper's order of passes in fp32: scripts/bench train

Both train the same networks on the same batch, in alternating steps of two processes. Every 16th step has a penalty:
the benchmark times both kinds of step, and weighs them by their share. Prints images per second, and the peak of memory
without what importing takes.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from scripts.benchmarks.peer import PENALTY_EVERY, Peer
from scripts.benchmarks.timing import machine, medians_of, row, seconds

Step = Callable[[bool], object]  # its argument: whether the penalty is due


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="preset of the networks (cifar10)")
    parser.add_argument("--batch", type=int, default=32, help="images in a step (32)")
    parser.add_argument("--rounds", type=int, default=2, help="timed steps of each kind (2)")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="SECTION.KEY=VALUE for tdpm")


def run(preset: str, batch: int, rounds: int, assignments: list[str]) -> None:
    builders = {"ours": our_step, "peer": peer_step}
    sides = {side: SeparateProcess(build, preset, batch, assignments) for side, build in builders.items()}
    try:
        times = medians_of(
            {(side, due): partial(process.seconds, due) for side, process in sides.items() for due in (False, True)},
            rounds,
        )
        memory = {side: process.peak() for side, process in sides.items()}
    finally:
        for process in sides.values():
            process.close()
    mean = {side: (times[side, False] * (PENALTY_EVERY - 1) + times[side, True]) / PENALTY_EVERY for side in sides}
    print(f"training {preset}, batch {batch}; {machine()}; medians of {rounds}")
    ours_text, peer_text = (f"{batch / mean[side]:.3g} img/s" for side in sides)
    row("ours", ours_text)
    row("reference's order of passes, fp32", peer_text, mean["peer"] / mean["ours"])
    row("ours, peak of memory", f"{memory['ours']:.0f} MiB")
    row("reference's, peak of memory", f"{memory['peer']:.0f} MiB", memory["ours"] / memory["peer"])


class SeparateProcess:
    """A kind of step in its own process, where settings and memory of the other kind do not affect it.

    `build` makes the step from what `prepare(*arguments)` returns.
    """

    def __init__(self, build: Callable[..., Step], *arguments: Any) -> None:
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (build, *arguments))

    def seconds(self, penalise: bool) -> float:
        """Return the seconds of a step."""
        return self.process.submit(_seconds, penalise).result()

    def peak(self) -> int:
        """Return the peak of memory in MiB, without what importing takes."""
        return self.process.submit(_peak).result()

    def close(self) -> None:
        self.process.shutdown()


_step: Step
_before: int  # KiB


def _begin(build: Callable[..., Step], *arguments: Any) -> None:
    global _step, _before
    import diffusers  # noqa: F401 (the memory of imports does not count)
    import torch

    torch.zeros(1)
    _before = _memory("VmRSS")
    _step = build(*prepare(*arguments))


def _seconds(penalise: bool) -> float:
    return seconds(lambda: _step(penalise))


def _peak() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return (_memory("VmHWM") - _before) >> 10


def prepare(preset: str, batch: int, assignments: list[str]) -> tuple[Any, Any, Any]:
    """Build the preset's components and a batch of noise images. Return them with the device."""
    import torch

    from tdpm_cli.config import load_config
    from tdpm_cli.runtime import device as devices
    from tdpm_cli.sampling.build import build
    from tdpm_cli.sampling.placement import with_precision

    config = load_config(preset, [f"train.batch={batch}", *assignments])
    device = devices.device()
    components = with_precision(build(config, device), device)
    raw = torch.randint(256, (batch, *components.space.raw_shape), dtype=torch.uint8)
    return components, raw, device


def our_step(components: Any, raw: Any, device: Any) -> Step:
    """Return a step as `tdpm train` does it."""
    from tdpm_cli.runtime import device as devices
    from tdpm_cli.runtime.malloc import keep_freed_memory
    from tdpm_cli.training.state import TrainerState
    from tdpm_cli.training.trainer import train_on

    keep_freed_memory()
    kind = components.config.train.precision
    state, cast = TrainerState(components, device), devices.autocast(kind, device)

    def step(penalise: bool) -> None:
        state.step = 0 if penalise else 1
        for value in train_on(state, raw, {}, cast).values():
            float(value)  # read the losses, as the reference does

    return step


def peer_step(components: Any, raw: Any, device: Any) -> Step:
    """Return a step in the paper's order of passes."""
    peer = Peer(components, device)
    return lambda penalise: peer.step(components.space.encode(raw.to(device)), penalise)


def _memory(key: str) -> int:
    """Return a figure of this process in KiB: VmRSS, its memory, or VmHWM, its peak (Linux)."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1])
