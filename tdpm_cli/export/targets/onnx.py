"""The whole sampler, unrolled, in ONNX: for onnxruntime and for tools that draw z themselves."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.export.export import ExportRequest
from tdpm_cli.export.sampler_module import Inputs, SamplerModule
from tdpm_cli.export.verified import export_sampler, traced
from tdpm_cli.runtime.console import next_command
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import LoadedModel

__all__ = ["Onnx"]

SUFFIX = ".onnx"
MAX_BYTES = 1.9e9  # of the weights: a protobuf message ends at 2 GiB
MISSING = "--format onnx needs onnx, onnxscript and onnxruntime; install them with: pip install 'tdpm-cli[export]'"


class Onnx:
    """One file that needs onnxruntime alone."""

    def export(self, loaded: LoadedModel, file: Path, request: ExportRequest) -> str:
        """Write and verify the file; suggest how to score it with torch-fidelity."""
        sampler, space = export_sampler(self, loaded, file, request), loaded.components.space
        if sampler.draws_noise:
            return sampler.text
        z_size = math.prod(loaded.components.model.prior.z_shape)
        note = "" if request.rgb or space.raw_shape[0] == 3 else "   (needs RGB: export with --rgb)"
        command = next_command(
            "fidelity --input1", file, "--input1-model-z-size", z_size, "--input1-model-z-type", "normal",
            "--input1-model-num-samples", "50000", "--input2", "IMAGES", "--fid",
        )  # fmt: skip
        return f"{sampler.text}\n{command}{note}"

    def write(self, sampler: SamplerModule, inputs: Inputs, path: Path, metadata: Mapping[str, str]) -> None:
        """Write `path`. Raises InputError if packages are missing or the weights exceed one file."""
        try:
            import onnx
            import onnxscript  # noqa: F401 (PyTorch's exporter needs it)
        except ImportError:
            raise InputError(MISSING) from None
        size = sum(weight.numel() * weight.element_size() for weight in sampler.parameters())
        if size > MAX_BYTES:
            raise InputError(f"{size / 1e9:.3g} GB of weights: an ONNX file holds at most 2 GB; use --format torch")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # from the exporter itself
            program = torch.onnx.export(
                traced(sampler, inputs), dynamo=True, verbose=False, external_data=False,
                input_names=list(inputs), output_names=["images", "x_0"],
            )  # fmt: skip
        assert program is not None, "dynamo=True returns a program"
        proto = program.model_proto
        onnx.helper.set_model_props(proto, dict(metadata))
        onnx.save(proto, str(path))

    def run(self, path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return images and x_0 as onnxruntime computes them on the CPU. Raises InputError if it is missing."""
        try:
            import onnxruntime
        except ImportError:
            raise InputError(MISSING) from None
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        images, x_0 = session.run(None, {key: value.numpy() for key, value in inputs.items()})
        return torch.from_numpy(images), torch.from_numpy(x_0)
