"""Names that presets and the command line share. Imports nothing heavy."""

from typing import Literal, get_args

from tdpm_cli.runtime.errors import InputError

SECTIONS = [  # of a preset, in the order in which they are written
    "data", "space", "condition", "schedule", "backbone", "prior", "discriminator", "encoder",
    "denoiser", "adversarial", "train", "sample", "eval",
]  # fmt: skip
Crop = Literal["centre", "wide", "dhariwal"]  # how an image of another shape is cropped
CROPS = get_args(Crop)
COLOURS = {"grey": 1, "rgb": 3}  # mode -> channels
Start = Literal["prior", "data", "gaussian"]  # what the denoising steps start from
FORMATS = ("png", "npz")  # of samples
MAX_SIDE = 4096  # pixels
IMAGES = (
    "a folder or a zip of images, an LMDB of LSUN, .tar shards, idx files, an .npz, a saved dataset of Hugging Face"
)


def parse_size(text: str) -> tuple[int, int]:
    """Return (width, height) of "64" or "64x48". Raises InputError for anything else."""
    sides = text.lower().split("x")
    if not 1 <= len(sides) <= 2 or not all(side.isdecimal() and 1 <= int(side) <= MAX_SIDE for side in sides):
        raise InputError(f"--resolution is {text!r}: expected a side or WIDTHxHEIGHT in pixels, such as 64 or 128x96")
    return int(sides[0]), int(sides[-1])
