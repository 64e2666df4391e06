"""Words that presets and the command line share. Light: wrong ones are told before anything heavy is imported."""

import re

SECTIONS = [
    "data", "space", "condition", "schedule", "backbone", "prior", "discriminator",
    "denoiser", "game", "train", "sample", "eval",
]  # of a preset, in the order in which they are written  # fmt: skip
_UNITS = {"": 1, "k": 1_000, "M": 1_000_000}


def parse_count(value: object) -> object:
    """ "200k" → 200000, "2M" → 2000000; anything that is no such text passes through."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([kM]?)", value) if isinstance(value, str) else None
    if not match:
        return value
    number = float(match[1]) * _UNITS[match[2]]
    return int(number) if number == int(number) else value
