"""The whole sampler as a program of torch.export (.pt2), for torch.export.load and AOTInductor."""

import io
import json
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.export.export import ExportRequest
from tdpm_cli.export.sampler_module import Inputs, SamplerModule
from tdpm_cli.export.verified import export_sampler, traced
from tdpm_cli.sampling.build import LoadedModel

__all__ = ["TorchExport"]

SUFFIX = ".pt2"
METADATA = "tdpm.json"  # the name of the metadata inside the file


class TorchExport:
    """A program that needs PyTorch but not tdpm."""

    def export(self, loaded: LoadedModel, file: Path, request: ExportRequest) -> str:
        """Write and verify the program."""
        return export_sampler(self, loaded, file, request).text

    def write(self, sampler: SamplerModule, inputs: Inputs, path: Path, metadata: Mapping[str, str]) -> None:
        """Write `path`, with the metadata inside. Raises InputError for a prior that cannot be traced."""
        program = traced(sampler, inputs)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="No complete tensor")  # about weights that share memory
            buffer = io.BytesIO()  # PyTorch's own writer aborts the process if the disk is full
            torch.export.save(program, buffer, extra_files={METADATA: json.dumps(dict(metadata))})
        path.write_bytes(buffer.getbuffer())

    def run(self, path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return images and x_0 as the program computes them."""
        images, x_0 = torch.export.load(path).module()(inputs)
        return images, x_0
