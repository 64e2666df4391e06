"""A program of `torch.export`: the whole sampler without our code, for `torch.export.load` and AOTInductor."""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.export.sampler_module import Inputs, Whole
from tdpm_cli.runtime.errors import InputError, first_line

ABOUT = "tdpm.json"  # in the file


def program_of(whole: Whole, inputs: Inputs) -> torch.export.ExportedProgram:
    """The traced program, for any batch. Raises InputError where a prior that is a program itself cannot be traced."""
    batch = torch.export.Dim("batch")
    for weight in whole.parameters():  # of a TorchScript program they are plain tensors
        weight._is_param = True
    try:
        return torch.export.export(whole, (inputs,), dynamic_shapes=({key: {0: batch} for key in inputs},))
    except Exception as error:  # one of many classes
        if whole.prior_name != "torchscript":
            raise
        raise InputError(
            "the prior is a TorchScript program that torch.export cannot follow for batches of any size "
            f"({first_line(error)}); where it reads z.shape[0], let it say -1. Or export safetensors"
        ) from None


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
