"""A training step of a preset's networks, ours against the reference's order of passes in fp32.

Both train the same networks on the same batch, each in a process of its own, in turn. Every 16th step has a penalty:
both kinds of step are timed, and counted by their share. The peak of memory is that of these steps, beyond what
importing takes.
"""

import argparse
import multiprocessing
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from typing import Any

from scripts.benchmarks.peer import PENALTY_EVERY, Peer
from scripts.benchmarks.timing import machine, medians_of, row, seconds

Step = Callable[[bool], object]  # takes whether the penalty is due


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="whose networks (cifar10)")
    parser.add_argument("--batch", type=int, default=32, help="images a step (32)")
    parser.add_argument("--rounds", type=int, default=2, help="steps of each kind (2)")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="of ours, as tdpm train's --set")


def run(preset: str, batch: int, rounds: int, assignments: list[str]) -> None:
    builders = {"ours": our_step, "peer": peer_step}
    sides = {side: Apart(build, preset, batch, assignments) for side, build in builders.items()}
    try:
        times = medians_of(
            {(side, due): partial(apart.seconds, due) for side, apart in sides.items() for due in (False, True)}, rounds
        )
        memory = {side: apart.peak() for side, apart in sides.items()}
    finally:
        for apart in sides.values():
            apart.close()
    mean = {side: (times[side, False] * (PENALTY_EVERY - 1) + times[side, True]) / PENALTY_EVERY for side in sides}
    print(f"training {preset}, batch {batch}; {machine()}; medians of {rounds}")
    ours_text, peer_text = (f"{batch / mean[side]:.3g} img/s" for side in sides)
    row("ours", ours_text)
    row("reference's order of passes, fp32", peer_text, mean["peer"] / mean["ours"])
    row("ours, peak of memory", f"{memory['ours']:.0f} MiB")
    row("reference's, peak of memory", f"{memory['peer']:.0f} MiB", memory["ours"] / memory["peer"])


class Apart:
    """One kind of step in a process of its own, for what it does to its process is not to help or hinder the other.

    `build` makes the step of what `assembled(*of)` returns.
    """

    def __init__(self, build: Callable[..., Step], *of: Any) -> None:
        self.process = ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), _begin, (build, *of))

    def seconds(self, penalise: bool) -> float:
        """What a step takes."""
        return self.process.submit(_seconds, penalise).result()

    def peak(self) -> int:
        """MiB at most so far, beyond the process as it was after importing."""
        return self.process.submit(_peak).result()

    def close(self) -> None:
        self.process.shutdown()


_step: Step
_before: int  # KiB


def _begin(build: Callable[..., Step], *of: Any) -> None:
    global _step, _before
    import diffusers  # noqa: F401 (what importing takes is not counted)
    import torch

    torch.zeros(1)
    _before = _memory("VmRSS")
    _step = build(*assembled(*of))


def _seconds(penalise: bool) -> float:
    return seconds(lambda: _step(penalise))


def _peak() -> int:
    import torch

    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() >> 20
    return (_memory("VmHWM") - _before) >> 10


def assembled(preset: str, batch: int, assignments: list[str]) -> tuple[Any, Any, Any]:
    """The preset's assembly, a batch of noise for images, and the device."""
    import torch

    from tdpm_cli.config import presets, schema
    from tdpm_cli.runtime import device as precision
    from tdpm_cli.sampling.build import build
    from tdpm_cli.sampling.placement import with_precision

    plain = presets.override(presets.read_preset(preset), [f"train.batch={batch}", *assignments])
    device = precision.device()
    made = with_precision(build(schema.load_config(plain), device), device)
    raw = torch.randint(256, (batch, *made.space.raw_shape), dtype=torch.uint8)
    return made, raw, device


def our_step(made: Any, raw: Any, device: Any) -> Step:
    """A step as `tdpm train` does it."""
    from pathlib import Path

    from tdpm_cli.runtime import device as precision
    from tdpm_cli.runtime.malloc import keep_freed_memory
    from tdpm_cli.training.trainer import Trainer

    keep_freed_memory()
    kind = made.config.train.precision
    trainer, cast = Trainer(made, Path(), device), precision.autocast(kind, device)

    def step(penalise: bool) -> None:
        trainer.step = 0 if penalise else 1
        for value in trainer.train_on(raw, {}, cast).values():
            float(value)  # losses are read, as the peer's are

    return step


def peer_step(made: Any, raw: Any, device: Any) -> Step:
    """A step as the reference does it."""
    peer = Peer(made, device)
    return lambda penalise: peer.step(made.space.encode(raw.to(device)), penalise)


def _memory(key: str) -> int:
    """Of this process, in KiB: VmRSS now, VmHWM at most so far (Linux)."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1])
