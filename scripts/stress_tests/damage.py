"""Damaged checkpoints: tdpm must skip and name them, and must never load one."""

import contextlib
import io
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

from scripts.stress_tests.processes import POINTS, Outcome
from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.config import load_config
from tdpm_cli.runtime.console import console
from tdpm_cli.sampling import build
from tdpm_cli.training.train import train


def pick(folder: Path, rng: random.Random) -> Path:
    return rng.choice(sorted(folder.iterdir()))


def truncated(folder: Path, older: Path, rng: random.Random) -> None:
    path = pick(folder, rng)
    os.truncate(path, rng.randrange(path.stat().st_size))


def bit_flipped(folder: Path, older: Path, rng: random.Random) -> None:
    path = pick(folder, rng)
    content = bytearray(path.read_bytes())
    content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
    path.write_bytes(content)


def missing(folder: Path, older: Path, rng: random.Random) -> None:
    pick(folder, rng).unlink()


def swapped(folder: Path, older: Path, rng: random.Random) -> None:
    """Swap two files of the checkpoint, or replace one by that of the older checkpoint."""
    one = pick(folder, rng)
    if rng.random() < 0.5:
        other = rng.choice([path for path in sorted(folder.iterdir()) if path.read_bytes() != one.read_bytes()])
        content = one.read_bytes()
        one.write_bytes(other.read_bytes())
        other.write_bytes(content)
    else:
        shutil.copy(older / one.name, one)


def zeroed(folder: Path, older: Path, rng: random.Random) -> None:
    """Fill a block with zeros, as a power failure may."""
    path = pick(folder, rng)
    content = bytearray(path.read_bytes())
    begin = rng.choice([k for k in range(0, len(content), 512) if any(content[k : k + 512])])
    content[begin : begin + 512] = bytes(len(content[begin : begin + 512]))
    path.write_bytes(content)


def longer(folder: Path, older: Path, rng: random.Random) -> None:
    with pick(folder, rng).open("ab") as file:
        file.write(rng.randbytes(rng.randrange(1, 100)))


def replaced(folder: Path, older: Path, rng: random.Random) -> None:
    """Replace the checkpoint by the older one."""
    shutil.rmtree(folder)
    shutil.copytree(older, folder)


KINDS: list[Callable[[Path, Path, random.Random], None]] = [
    truncated, bit_flipped, missing, swapped, zeroed, longer, replaced,
]  # fmt: skip


def damaged_checkpoints(n: int, folder: Path) -> Outcome:
    """Damage the newer of two checkpoints n times. Each time tdpm must skip it and name it, or reject it."""
    console.quiet = True
    run = train(load_config("toy-mixture", [*POINTS, "train.duration=128", "train.snapshot=64"]), folder, "run")
    assert run is not None
    older, newer = checkpoint.list_checkpoints(run)
    sound = folder / "sound"
    shutil.copytree(newer, sound)
    console.quiet = False
    rng, silent, unnamed, crashed = random.Random(0), [], [], []
    for trial in range(n):
        shutil.rmtree(newer)
        shutil.copytree(sound, newer)
        damage = KINDS[trial % len(KINDS)]
        damage(newer, older, rng)
        what = f"{damage.__name__} (trial {trial})"
        printed = io.StringIO()
        usual, console.file = console.file, printed
        try:
            if checkpoint.newest(run) != older:
                silent.append(what)
            elif str(newer) not in printed.getvalue():
                unnamed.append(what)
            with contextlib.suppress(formats.Damaged):
                formats.verify(newer)
                silent.append(f"{what}, requested by path")
            before = newer / f"ema-{formats.read_state(older)['ema'][0]}.safetensors"
            loaded = build.load_model(run)
            if loaded.source == before and before.read_bytes() != (sound / before.name).read_bytes():
                silent.append(f"{what}, for sampling")
        except Exception as error:
            crashed.append(f"{what}: {type(error).__name__}: {error}")
        finally:
            console.file = usual
    return Outcome(
        "A damaged checkpoint is skipped and named. If you name it yourself, it is an error.",
        f"damage to the newer of two checkpoints, {n} times: "
        + ", ".join(kind.__name__.replace("_", " ") for kind in KINDS),
        f"{len(silent)} loaded silently, {len(unnamed)} not named, {len(crashed)} tracebacks",
        [f"loaded silently: {what}" for what in silent] + [f"not named: {what}" for what in unnamed] + crashed,
    )
