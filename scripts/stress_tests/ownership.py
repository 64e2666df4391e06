"""Files of others in the places of those that a command writes: tdpm must leave them as they are."""

import itertools
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.stress_tests.hostile import call_in_process
from scripts.stress_tests.processes import IMAGES, POINTS, Outcome, quiet
from tdpm_cli.config import load_config
from tdpm_cli.training.train import train

PRECIOUS = "precious\n"
INPUTS, OUT = "images", "out"  # folders of a trial
SMALL = ["--n", "2", "--steps", "1"]


def link(path: Path, precious: Path) -> None:
    path.symlink_to(precious)


def dangling_link(path: Path, precious: Path) -> None:
    path.symlink_to(precious.with_name("missing"))


def hard_link(path: Path, precious: Path) -> None:
    path.hardlink_to(precious)


def fifo(path: Path, precious: Path) -> None:
    os.mkfifo(path)


def file(path: Path, precious: Path) -> None:
    path.write_text(PRECIOUS)


def folder_of_files(path: Path, precious: Path) -> None:
    path.mkdir()
    (path / "precious.txt").write_text(PRECIOUS)


TRAPS: list[Callable[[Path, Path], None]] = [link, dangling_link, hard_link, fifo, file, folder_of_files]


def commands(points: Path, images: Path) -> dict[str, list[str]]:
    """Return a command line of every command that writes; its outputs are below OUT, its inputs in INPUTS."""
    small_points = [argument for setting in POINTS for argument in ("--set", setting)]
    return {
        "train": ["train", "--preset", "toy-mixture", *small_points, "--duration", "64", "--outdir", OUT,
                  "--name", "run"],
        "sample": ["sample", "--model", str(images), *SMALL, f"{OUT}/samples"],
        "sample of points": ["sample", "--model", str(points), *SMALL, f"{OUT}/samples"],
        "encode": ["encode", INPUTS, "--model", str(images), *SMALL, f"{OUT}/encoded"],
        "edit": ["edit", INPUTS, "--model", str(images), *SMALL, "--strength", "0.5", f"{OUT}/edited"],
        "interpolate": ["interpolate", "--seeds", "0,1", "--frames", "2", "--model", str(images), f"{OUT}/frames"],
        "eval": ["eval", "--model", str(points), "--n", "64", "--json", f"{OUT}/scores.json", "--no-cache"],
        "sweep": ["sweep", "--model", str(points), "--n", "64", "--steps", "1", "--out", f"{OUT}/sweep", "--no-cache"],
        "export": ["export", "--model", str(points), f"{OUT}/model.safetensors"],
        "data prepare": ["data", "prepare", INPUTS, f"{OUT}/data.zip", "--resolution", "8", "--workers", "1"],
        "data inspect": ["data", "inspect", INPUTS, "--sheet", f"{OUT}/sheet.png", "--json", f"{OUT}/data.json"],
    }  # fmt: skip


def ownership(n: int, folder: Path) -> Outcome:
    """Put something of another owner in the place of a file that a command writes, n times, and run the command."""
    quiet()
    points = train(load_config("toy-mixture", [*POINTS, "train.duration=64"]), folder, "points")
    images = train(load_config("digits", IMAGES), folder, "images")
    failures = list[str]()
    trials = []
    for name, command in commands(points, images).items():
        place = new_place(folder / "complete")
        status, output = run_in(place, command, folder / "log")
        if status != 0:
            failures.append(f"{name}: status {status}: {output[-400:]}")
        trials += list(itertools.product([(name, command)], written(place), TRAPS))
    random.Random(0).shuffle(trials)
    accepted = 0
    for (name, command), path, trap in trials[:n]:
        place = new_place(folder / "trial")
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        trap(place / path, place / "precious.txt")
        status, output = run_in(place, command, folder / "log")
        accepted += status == 0
        what = f"{name}, {trap.__name__.replace('_', ' ')} at {path}"
        if status not in (0, 2) or "Traceback" in output or "defect" in output:
            failures.append(f"{what}: status {status}: {output[-400:]}")
        failures += [f"{what}: {problem}" for problem in losses(place, place / path, trap)]
    count = min(n, len(trials))
    return Outcome(
        "tdpm changes and removes nothing that it did not write.",
        f"{count} of {len(trials)} pairs of a file that one of {len(commands(points, images))} commands writes, and "
        f"something else in its place: {', '.join(trap.__name__.replace('_', ' ') for trap in TRAPS)}",
        f"{count - accepted} rejected with status 2, {accepted} written without a loss; {len(failures)} lost, or ended "
        "with another status",
        failures,
    )


def new_place(place: Path) -> Path:
    """Make a working directory with images and a precious file."""
    shutil.rmtree(place, ignore_errors=True)
    (place / INPUTS).mkdir(parents=True)
    (place / OUT).mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / INPUTS / f"{k}.png")
    (place / "precious.txt").write_text(PRECIOUS)
    return place


def run_in(place: Path, command: list[str], log: Path) -> tuple[int, str]:
    """Run a command line in a working directory; return its status and output."""
    before = Path.cwd()
    os.chdir(place)
    try:
        status, output, _ = call_in_process(command, log)
    finally:
        os.chdir(before)
    return status, output


def written(place: Path) -> list[str]:
    """Return what a command wrote in a place, files and folders, but for the folders of outputs themselves."""
    paths = [path for path in sorted((place / OUT).rglob("*")) if not path.is_dir() or any(path.iterdir())]
    return [path.relative_to(place).as_posix() for path in paths if path.is_file()]


def losses(place: Path, path: Path, trap: Callable[[Path, Path], None]) -> list[str]:
    """Return what was lost."""
    problems = []
    if (place / "precious.txt").read_text() != PRECIOUS:
        problems.append("a file outside was changed")
    if (place / "missing").exists():
        problems.append("a file outside was created")
    if trap is file and (not path.is_file() or path.read_text(errors="replace") != PRECIOUS):
        problems.append("the file was replaced")
    if trap is folder_of_files and (path / "precious.txt").read_text() != PRECIOUS:
        problems.append("the folder was changed")
    return problems
