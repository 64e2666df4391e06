"""ONNX: the whole sampler, unrolled, for onnxruntime and for tools that draw z themselves."""

import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.export.sampler_module import Inputs, Whole
from tdpm_cli.export.targets.torch_export import program_of
from tdpm_cli.runtime.errors import InputError

MOST = 1.9e9  # bytes of weights: a protobuf message ends at 2 GiB


def write(whole: Whole, inputs: Inputs, path: Path, about: Mapping[str, str]) -> None:
    """Write `path`. Raises InputError where the packages are missing, or the weights too many for one file."""
    try:
        import onnx
        import onnxscript  # noqa: F401 (torch's exporter needs it)
    except ImportError:
        raise InputError(MISSING) from None
    size = sum(weight.numel() * weight.element_size() for weight in whole.parameters())
    if size > MOST:
        raise InputError(f"{size / 1e9:.3g} GB of weights: an ONNX file holds at most 2 GB; use --format torch")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's own
        program = torch.onnx.export(
            program_of(whole, inputs), dynamo=True, verbose=False, external_data=False,
            input_names=list(inputs), output_names=["images", "x_0"],
        )  # fmt: skip
    assert program is not None, "what dynamo=True returns"
    proto = program.model_proto
    onnx.helper.set_model_props(proto, dict(about))
    onnx.save(proto, str(path))


def run(path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
    """Images and x_0, as onnxruntime computes them on the CPU. Raises InputError where it is not installed."""
    try:
        import onnxruntime
    except ImportError:
        raise InputError(MISSING) from None
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    images, x_0 = session.run(None, {key: value.numpy() for key, value in inputs.items()})
    return torch.from_numpy(images), torch.from_numpy(x_0)


MISSING = "--format onnx needs onnx, onnxscript and onnxruntime; install them with: pip install 'tdpm-cli[export]'"
