"""Wrong terminals: encodings without the characters, streams that fail, and names that steer terminals."""

import contextlib
import os
import random
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

from PIL import Image

from scripts.stress_tests.processes import Outcome

ENCODINGS = ("ascii", "cp1252", "cp437", "latin-1", "utf-8")
NAMES = ("a\x1b[31mb.png", "c[/red].png", "[x].png", "d\x9b2J.png", "=1+1.png", "e\u202ef.png", "\udce9.png")
CONTROLS = "\x1b\x9b\x07\u202e"
SUCCESS, WRONG_INPUT = (0,), (2,)


def terminals(n: int, folder: Path) -> Outcome:
    """Run n commands on terminals of every kind: they must end as usual, and print no control characters."""
    images, broken = folder / "im[ages]", folder / "bro\x1b[2Jken"
    images.mkdir()
    broken.mkdir()
    for name in NAMES:
        (images / name).parent.mkdir(exist_ok=True)
        Image.new("L", (8, 8)).save(images / name)
    (broken / "a\x1b[2J[b].png").write_bytes(b"no image")
    commands: dict[tuple[str, ...], tuple[int, ...]] = {
        ("presets",): SUCCESS, ("presets", "digits"): SUCCESS, ("presets", "nosuch★[/b]"): WRONG_INPUT,
        ("data", "verify", str(broken)): WRONG_INPUT, ("data", "inspect", str(images)): SUCCESS,
        ("eval", "im[/red]\x1b[31m"): WRONG_INPUT,
    }  # fmt: skip
    cases = [(command, terminal) for command in commands for terminal in (*ENCODINGS, *LISTENERS)]
    failures = []
    for command, terminal in random.Random(0).sample(cases, min(n, len(cases))):
        statuses = (*commands[command], *WRONG_INPUT) if terminal == "full device" else commands[command]
        if terminal in LISTENERS:
            with LISTENERS[terminal]() as stream:
                done, text = _run(command, folder, {}, stream), ""
        else:
            done = _run(command, folder, {"PYTHONIOENCODING": terminal}, subprocess.PIPE)
            text = (done.stdout + done.stderr).decode(terminal, "replace")
        if done.returncode not in statuses or any(control in text for control in CONTROLS):
            failures.append(f"{command} on {terminal}: status {done.returncode}: {text[-300:]!r}")
    return Outcome(
        "Every terminal is served: characters that it lacks are replaced, and names do not steer it.",
        f"{len(commands)} commands, on {len(NAMES) + 1} hostile names, in {', '.join(ENCODINGS)}, to a closed pipe and "
        "to a full device",
        f"{min(n, len(cases))} runs; {len(failures)} with another status, a traceback or a control character",
        failures,
    )


def _run(
    command: tuple[str, ...], folder: Path, environment: dict[str, str], stream: "int | IO[bytes]"
) -> "subprocess.CompletedProcess[bytes]":
    return subprocess.run(
        [sys.executable, "-m", "tdpm_cli", *command], stdout=stream, stderr=stream, cwd=folder,
        env={**os.environ, "PYTHONPATH": os.getcwd(), **environment}, check=False,
    )  # fmt: skip


@contextlib.contextmanager
def closed_pipe() -> Iterator[int]:
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        yield writing
    finally:
        os.close(writing)


@contextlib.contextmanager
def full_device() -> Iterator[IO[bytes]]:
    """A device without space."""
    with open("/dev/full", "wb") as file:
        yield file


LISTENERS: dict[str, Callable[[], contextlib.AbstractContextManager["int | IO[bytes]"]]] = {
    "closed pipe": closed_pipe, "full device": full_device,
}  # fmt: skip
