"""The weights with their whole config in safetensors, which every command of tdpm accepts as --model."""

from pathlib import Path

from tdpm_cli.checkpoints import weights
from tdpm_cli.config.external import Confirmation
from tdpm_cli.export.export import ExportRequest
from tdpm_cli.runtime.console import next_command, print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256
from tdpm_cli.sampling import build
from tdpm_cli.sampling.build import LoadedModel

__all__ = ["Safetensors"]

SUFFIX = ".safetensors"


class Safetensors:
    """Weights and config in one file."""

    def export(self, loaded: LoadedModel, file: Path, request: ExportRequest) -> str:
        """Write the weights and load them again. Raises InputError for options of a sampler."""
        if request.rgb or any(value is not None for value in request.options.values()):
            raise InputError("--format safetensors stores weights alone: omit --rgb and the sampling options")
        components = loaded.components
        header = build.header(components.config, loaded.weights, loaded.seen)
        weights.write_weights(file, components.model, header | {"licence": request.licence})
        stored = weights.tensors_of(build.load_model(file, confirmation=Confirmation(everything=True)).components.model)
        differing = [
            name for name, tensor in weights.tensors_of(components.model).items() if not tensor.equal(stored[name])
        ]
        assert not differing, f"{file}: {differing} changed"
        if components.config.prior.name == "torchscript":
            print_line(
                f"note: {file} does not contain the prior's program {components.model.prior.file}, which is code; copy "
                "the program to where you use the file, and trust it there"
            )
        return f"sha256 {sha256(file)[:16]}…\n" + next_command("tdpm sample --model", file, "--n", "16", "samples/")
