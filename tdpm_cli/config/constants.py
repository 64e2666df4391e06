"""Words that presets and the command line share. Light: wrong ones are told before anything heavy is imported."""

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
IMAGES = (
    "a folder or a zip of images, an LMDB of LSUN, .tar shards, idx files, an .npz, a saved data set of Hugging Face"
)


def parse_size(text: str) -> tuple[int, int]:
    """(width, height) of "64" or "64x48". Raises InputError for anything else."""
    words = text.lower().split("x")
    if not 1 <= len(words) <= 2 or not all(word.isdecimal() and 1 <= int(word) <= 4096 for word in words):
        raise InputError(f"--resolution is {text!r}: it must be a side or WIDTHxHEIGHT in pixels, such as 64 or 128x96")
    return int(words[0]), int(words[-1])
