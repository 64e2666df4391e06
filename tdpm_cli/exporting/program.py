"""A program of `torch.export`: the whole sampler without our code, for `torch.export.load` and AOTInductor."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.exporting.whole import Inputs, Whole

ABOUT = "tdpm.json"  # in the file


def program_of(whole: Whole, inputs: Inputs) -> torch.export.ExportedProgram:
    """The traced program, for any batch."""
    batch = torch.export.Dim("batch")
    return torch.export.export(whole, (inputs,), dynamic_shapes=({key: {0: batch} for key in inputs},))


def write(whole: Whole, inputs: Inputs, path: Path, about: Mapping[str, str]) -> None:
    """Write `path` (.pt2), with what it says of itself inside."""
    program = program_of(whole, inputs)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="No complete tensor")  # of weights that share memory
        torch.export.save(program, path, extra_files={ABOUT: json.dumps(dict(about))})


def run(path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Images and x_0, as the file gives them."""
    images, x_0 = torch.export.load(path).module()(inputs)
    return images, x_0
