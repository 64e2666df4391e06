"""TorchScript programs, by the hash of their file. A program is code: only those that the user has named are run."""

import warnings
from pathlib import Path

import torch
from platformdirs import user_data_path

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256


def place(digest: str) -> Path:
    """Return the path of the trusted program with this SHA-256."""
    return user_data_path("tdpm") / "programs" / f"{digest}.pt"


def load(digest: str) -> torch.jit.ScriptModule:
    """Load a trusted program to the CPU, in eval mode. Raises InputError if this machine does not trust it."""
    path = place(digest)
    if not path.is_file():
        raise InputError(
            f"prior.program is {digest}, the SHA-256 of a TorchScript program, which is code and runs with your "
            f"rights. This machine does not trust it, so it was not run. If you trust it, copy the file (prior.pt in "
            f"the run's folder) to {path}; `tdpm train --init-prior FILE` does so for a new run"
        )
    if sha256(path) != digest:
        raise InputError(f"{path}: damaged: its SHA-256 differs from its name; remove it, and copy the program again")
    return read(path)


def read(path: Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Load any program, in eval mode. Raises InputError for a file that is not TorchScript."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; it must be a TorchScript module")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.load` is ")  # no other function reads TorchScript
        try:
            return torch.jit.load(path, map_location=device).eval()
        except RuntimeError as error:
            raise InputError(
                f"{path}: not TorchScript ({first_line(error)}); save one with torch.jit.script(module).save(PATH) or "
                "torch.jit.trace(module, example).save(PATH)"
            ) from None
