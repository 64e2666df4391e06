"""Words that presets and the command line share. Light: wrong ones are told before anything heavy is imported."""

from pathlib import Path
from typing import Literal, get_args

from tdpm_cli.runtime.errors import InputError

SECTIONS = [
    "data", "space", "condition", "schedule", "backbone", "prior", "discriminator",
    "denoiser", "adversarial", "train", "sample", "eval",
]  # of a preset, in the order in which they are written  # fmt: skip
Crop = Literal["centre", "wide", "dhariwal"]  # how an image of another shape is brought to the one wanted
CROPS = get_args(Crop)
COLOURS = {"grey": 1, "rgb": 3}  # and their channels
Start = Literal["prior", "data", "gaussian"]  # where a reverse chain starts
FORMATS = ("png", "npz")  # that samples are written in
SUFFIXES = {".safetensors": "safetensors", ".onnx": "onnx", ".pt2": "torch"}  # of exported files
GRAPHS = {"torch": "program", "onnx": "onnx", "diffusers": "diffusers"}  # exported samplers, and what writes them
EXPORTS = ("safetensors", *GRAPHS)
IMAGES = (
    "a folder or a zip of images, an LMDB of LSUN, .tar shards, idx files, an .npz, a saved data set of Hugging Face"
)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "64" or "64x48". Raises InputError for anything else."""
    words = text.lower().split("x")
    if not 1 <= len(words) <= 2 or not all(word.isdecimal() and 1 <= int(word) <= 4096 for word in words):
        raise InputError(f"--resolution is {text!r}: it must be a side or WIDTHxHEIGHT in pixels, such as 64 or 128x96")
    return int(words[0]), int(words[-1])


def export_format(file: Path, given: str | None) -> str:
    """In what a model is exported to `file`: as given, or as its suffix says. Raises InputError for neither, and for a
    file that cannot become one."""
    kind = given or SUFFIXES.get(file.suffix, "")
    if kind == "diffusers" and file.exists():
        raise InputError(f"{file}: it exists; name a new folder")
    if file.is_dir():
        raise InputError(f"{file}: it is a folder; name a file such as {file / 'model.safetensors'}")
    if kind not in EXPORTS:
        raise InputError(f"--format {kind or '(none)'}: accepted: {', '.join(EXPORTS)}; "
                         f"or a FILE that ends in {', '.join(SUFFIXES)}")  # fmt: skip
    return kind
