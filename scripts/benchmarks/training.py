"""A training step of a preset's networks, ours against the schedule of passes of the reference's step in fp32.

Both train the same networks on the same batch. Every 16th step has a penalty: both kinds of step are timed, and
counted by their share. The peak of memory is that of two steps in a process of its own, beyond what importing takes.
"""

import argparse
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from scripts.benchmarks.peer import PENALTY_EVERY, Peer
from scripts.benchmarks.timing import machine, medians, row

Step = Callable[[bool], object]  # takes whether the penalty is due


def options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--preset", default="cifar10", help="whose networks (cifar10)")
    parser.add_argument("--batch", type=int, default=8, help="images a step (8)")
    parser.add_argument("--rounds", type=int, default=3, help="steps of each kind (3)")
    parser.add_argument("--set", dest="assignments", action="append", default=[], help="of ours, as tdpm train's --set")
    parser.add_argument("--memory-of", choices=["ours", "peer"], help="print only the peak of one side, in MiB")


def run(preset: str, batch: int, rounds: int, assignments: list[str], memory_of: str | None) -> None:
    made = lambda: assembled(preset, batch, assignments)
    if memory_of:
        print(peak_of(memory_of, made))
        return
    memory = {
        side: float(
            subprocess.run([sys.executable, "-m", "scripts.benchmarks", "train", "--preset", preset, "--batch",
                            str(batch), "--memory-of", side, *(f"--set={each}" for each in assignments)],
                           check=True, capture_output=True, text=True).stdout)
        for side in ("ours", "peer")
    }  # fmt: skip
    ours, peer = our_step(*made()), peer_step(*made())
    times = medians(
        {
            "ours": lambda: ours(False), "peer": lambda: peer(False),
            "ours, penalised": lambda: ours(True), "peer, penalised": lambda: peer(True),
        },
        rounds,
    )  # fmt: skip
    mean = {
        side: (times[side] * (PENALTY_EVERY - 1) + times[f"{side}, penalised"]) / PENALTY_EVERY
        for side in ("ours", "peer")
    }
    print(f"training {preset}, batch {batch}; {machine()}; medians of {rounds}")
    ours_text, peer_text = (f"{batch / mean[side]:.3g} img/s" for side in ("ours", "peer"))
    row("ours", ours_text)
    row("reference's schedule of passes, fp32", peer_text, mean["peer"] / mean["ours"])
    row("ours, peak of memory", f"{memory['ours']:.0f} MiB")
    row("reference's, peak of memory", f"{memory['peer']:.0f} MiB", memory["ours"] / memory["peer"])


def assembled(preset: str, batch: int, assignments: list[str]) -> tuple[Any, Any, Any]:
    """The preset's assembly, a batch of noise for images, and the device."""
    import torch

    from tdpm_cli import config as configuration
    from tdpm_cli import presets
    from tdpm_cli.assemble import assemble
    from tdpm_cli.run import precision
    from tdpm_cli.training import with_precision

    plain = presets.override(presets.read_preset(preset), [f"train.batch={batch}", *assignments])
    device = precision.device()
    made = with_precision(assemble(configuration.from_dict(plain), device), device)
    raw = torch.randint(256, (batch, *made.space.raw_shape), dtype=torch.uint8)
    return made, raw, device


def our_step(made: Any, raw: Any, device: Any) -> Step:
    """A step as `tdpm train` does it."""
    from pathlib import Path

    from tdpm_cli.run import precision
    from tdpm_cli.training import Trainer

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


def peak_of(side: str, made: Callable[[], tuple[Any, Any, Any]]) -> int:
    """MiB that two steps of one side take at most, beyond the process as it is after importing."""
    import diffusers  # noqa: F401 (what importing takes is not counted)
    import torch

    import tdpm_cli.training  # noqa: F401

    torch.zeros(1)
    on_gpu = torch.cuda.is_available()
    before = 0 if on_gpu else _memory("VmRSS")
    step = {"ours": our_step, "peer": peer_step}[side](*made())
    step(True)
    step(False)
    return torch.cuda.max_memory_allocated() >> 20 if on_gpu else (_memory("VmHWM") - before) >> 10


def _memory(key: str) -> int:
    """Of this process, in KiB: VmRSS now, VmHWM at most so far (Linux)."""
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith(key)).split()[1])
