"""What targets share that write the whole sampler: trace it, run the file in its own runtime, compare, then keep it."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from tdpm_cli.checkpoints import weights
from tdpm_cli.export.export import ExportRequest
from tdpm_cli.export.sampler_module import Inputs, SamplerModule, metadata
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import staging
from tdpm_cli.sampling.build import LoadedModel
from tdpm_cli.sampling.settings import settings_of

MAX_ERROR = 1e-3  # of x_0, in a file that is kept
TRACED_BATCH, VERIFIED_BATCHES = 3, (1, 5)


class SamplerTarget(Protocol):
    """A target that writes the whole sampler."""

    def write(self, sampler: SamplerModule, inputs: Inputs, path: Path, metadata: Mapping[str, str]) -> None:
        """Write `path`, traced with these inputs. Raises InputError for a sampler that the target cannot express."""

    def run(self, path: Path, inputs: Inputs) -> tuple[Tensor, Tensor]:
        """Return images and x_0 as the target's runtime computes them from the file."""


@dataclass(frozen=True)
class VerifiedSampler:
    """An exported sampler: the text of its inputs, whether noise is one of them, and its largest errors.

    `error` is that of x_0, `levels` that of the images, of 255.
    """

    inputs: str
    draws_noise: bool
    error: float
    levels: int

    @property
    def text(self) -> str:
        """The inputs and the errors, for the user."""
        return f"inputs: {self.inputs}; largest error {self.error:.1e} in x_0, {self.levels} of 255 in images"


def export_sampler(target: SamplerTarget, loaded: LoadedModel, file: Path, request: ExportRequest) -> VerifiedSampler:
    """Write a sampler to `file` and verify it.

    Raises InputError, and leaves no file, if x_0 in the target's runtime differs by more than MAX_ERROR from ours.
    """
    settings = settings_of(loaded.components, **{**request.options, "precision": "fp32"})
    sampler = SamplerModule(loaded, settings, request.rgb).eval()
    about = metadata(loaded, settings, request.licence)
    print_line(f"tracing {about['nfe']} network calls ({settings.sampler}) …")
    with staging(file) as part, weights.disk_errors():
        target.write(sampler, sampler.inputs(TRACED_BATCH), part, about)
        error, levels = _errors(target, sampler, part)
        if error > MAX_ERROR:
            raise InputError(f"{file}: not written: in its runtime x_0 differs by {error:.1e} from that of tdpm; "
                             f"accepted: {MAX_ERROR:g}")  # fmt: skip
    noise = [f"noise [B, {sampler.noise_draws}, …]"] if sampler.noise_draws else []
    inputs = ", ".join([f"z [B, {about['z_size']}]", *noise, *sampler.null])
    return VerifiedSampler(inputs, bool(noise), error, levels)


def traced(sampler: SamplerModule, inputs: Inputs) -> torch.export.ExportedProgram:
    """Trace a sampler for any batch. Raises InputError for a TorchScript prior that cannot be traced."""
    batch = torch.export.Dim("batch")
    for weight in sampler.parameters():  # those of a TorchScript program are plain tensors
        weight._is_param = True
    try:
        return torch.export.export(sampler, (inputs,), dynamic_shapes=({key: {0: batch} for key in inputs},))
    except Exception as error:  # one of many classes
        if sampler.prior_name != "torchscript":
            raise
        raise InputError(
            f"torch.export cannot trace the TorchScript program of the prior for any batch ({first_line(error)}); "
            "use -1 instead of z.shape[0] in the program, or export safetensors"
        ) from None


def _errors(target: SamplerTarget, sampler: SamplerModule, path: Path) -> tuple[float, int]:
    """Return the largest errors of x_0 and of images, in levels, at batches other than the traced one."""
    errors, levels = [], [0]
    for n in VERIFIED_BATCHES:
        inputs = sampler.inputs(n, seed=1)
        with torch.inference_mode():
            images, x_0 = sampler(inputs)
        target_images, target_x_0 = target.run(path, inputs)
        errors.append(float((target_x_0 - x_0).abs().max()))
        if images.dtype == torch.uint8:
            levels.append(int((target_images.int() - images.int()).abs().max()))
    return max(errors), max(levels)
