"""A command line of every command that writes, and a working directory in which it runs."""

import os
import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from scripts.stress_tests.hostile import call_in_process
from scripts.stress_tests.processes import IMAGES, POINTS
from tdpm_cli.config import load_config
from tdpm_cli.training.train import train

PRECIOUS = "precious\n"
INPUTS, OUT = "images", "out"  # folders of a place
SMALL = ["--n", "2", "--steps", "1"]


def command_lines(folder: Path) -> dict[str, list[str]]:
    """Train small models in `folder`, and return a command line of every command that writes.

    Inputs are relative to a working directory from `new_place`, and outputs are in its folder OUT.
    """
    points = train(load_config("toy-mixture", [*POINTS, "train.duration=64"]), folder, "points")
    images = train(load_config("digits", IMAGES), folder, "images")
    small_points = [argument for setting in POINTS for argument in ("--set", setting)]
    return {
        "train": ["train", "--preset", "toy-mixture", *small_points, "--duration", "64", "--outdir", OUT,
                  "--name", "run"],
        "sample": ["sample", "--model", str(images), *SMALL, f"{OUT}/samples"],
        "sample of points": ["sample", "--model", str(points), *SMALL, f"{OUT}/points"],
        "encode": ["encode", INPUTS, "--model", str(images), *SMALL, f"{OUT}/encoded"],
        "reconstruct": ["reconstruct", INPUTS, "--model", str(images), *SMALL, f"{OUT}/reconstructed"],
        "edit": ["edit", INPUTS, "--model", str(images), *SMALL, "--strength", "0.5", f"{OUT}/edited"],
        "interpolate": ["interpolate", "--seeds", "0,1", "--frames", "2", "--model", str(images), f"{OUT}/frames"],
        "eval": ["eval", "--model", str(points), "--n", "64", "--json", f"{OUT}/scores.json", "--no-cache"],
        "sweep": ["sweep", "--model", str(points), "--n", "64", "--steps", "1", "--out", f"{OUT}/sweep", "--no-cache"],
        "export": ["export", "--model", str(points), f"{OUT}/model.safetensors"],
        "data prepare": ["data", "prepare", INPUTS, f"{OUT}/data.zip", "--resolution", "8", "--workers", "1"],
        "data inspect": ["data", "inspect", INPUTS, "--sheet", f"{OUT}/sheet.png", "--json", f"{OUT}/data.json"],
    }  # fmt: skip


def new_place(place: Path) -> Path:
    """Make a working directory with images, a precious file and an empty folder for outputs."""
    shutil.rmtree(place, ignore_errors=True)
    (place / INPUTS).mkdir(parents=True)
    (place / OUT).mkdir()
    for k in range(3):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8), np.uint8)
        Image.fromarray(pixels).save(place / INPUTS / f"{k}.png")
    (place / "precious.txt").write_text(PRECIOUS)
    return place


def complete_place(command: list[str], folder: Path) -> Path:
    """Run a command line undisturbed in a new working directory, and return the directory."""
    place = new_place(folder / "complete")
    status, output = run_in(place, command, folder / "log")
    assert status == 0, f"{command}: status {status}: {output[-400:]}"
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
    """Return the files that commands wrote in a place, relative to it."""
    paths = sorted((place / OUT).rglob("*"))
    return [path.relative_to(place).as_posix() for path in paths if path.is_file() or path.is_symlink()]
