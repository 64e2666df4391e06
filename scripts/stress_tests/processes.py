"""Processes for the stress tests to kill: forked from one that has imported PyTorch, so that each starts at once."""

import contextlib
import os
import random
import signal
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch

from tdpm_cli.runtime.console import console
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted, raise_interrupted

torch.set_num_threads(1)  # a forked process does not have the threads of its parent

POINTS = (
    "data.count=512", "backbone.width=16", "backbone.blocks=1", "discriminator.width=16", "train.batch=32",
    "train.precision=fp32",
)  # fmt: skip
IMAGES = (
    "backbone.channels=8", "backbone.mult=[1, 2]", "discriminator.channel_base=32", "train.duration=64",
    "train.batch=16", "train.precision=fp32", "sample.precision=fp32",
)  # fmt: skip


@dataclass
class Outcome:
    """A line of the table: what is promised, how it was tested, the result, and each failure."""

    promise: str
    test: str
    result: str
    failures: list[str] = field(default_factory=list)


def start(work: Callable[[], object], log: Path) -> int:
    """Fork a process that does `work`, prints to `log`, and exits as the command line does. Return its process id."""
    if child := os.fork():
        return child
    handle = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(handle, 1)
    os.dup2(handle, 2)
    status = 1
    try:
        raise_interrupted()
        work()
        status = 0
    except InputError as error:
        os.write(2, f"error: {error}\n".encode())
        status = 2
    except Interrupted as stop:
        status = stop.status
    except BaseException:
        os.write(2, traceback.format_exc().encode())
    finally:
        os._exit(status)


def status_of(child: int) -> int:
    """Wait until a process ends. Return its exit status, or minus the number of the signal that ended it."""
    _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def kill_within(child: int, seconds: float, rng: random.Random) -> int:
    """Kill a process at a random instant, unless it ends earlier. Return its status."""
    until = time.monotonic() + rng.uniform(0, seconds)
    while time.monotonic() < until:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError):
        os.kill(child, signal.SIGKILL)
    return status_of(child)


def quiet() -> None:
    """Print nothing of what tdpm prints."""
    console.quiet = True
