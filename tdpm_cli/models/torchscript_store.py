"""Programs of TorchScript. One is code, and runs with the user's rights: only those run here that the user has named,
each known by the hash of its file."""

import warnings
from pathlib import Path

import torch
from platformdirs import user_data_path

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256


def place(digest: str) -> Path:
    """Where a trusted program of that SHA-256 lies."""
    return user_data_path("tdpm") / "programs" / f"{digest}.pt"


def load(digest: str) -> torch.jit.ScriptModule:
    """The program of that SHA-256, on the CPU and in eval mode. Raises InputError for one that is not trusted here."""
    path = place(digest)
    if not path.is_file():
        raise InputError(
            f"the prior is a TorchScript program (SHA-256 {digest}), which is code and runs with your rights; it is "
            f"not among those that you trust here, so it was not run. If you do trust it, copy the file (prior.pt in "
            f"the run's folder) to {path}"
        )
    if sha256(path) != digest:
        raise InputError(f"{path}: damaged: its SHA-256 is not its name; remove it, and give the program again")
    return read(path)


def read(path: Path, device: torch.device | str = "cpu") -> torch.jit.ScriptModule:
    """Any program, in eval mode. Raises InputError for a file that is none."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; it must be a TorchScript module")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit.load` is ")  # nothing else reads these
        try:
            return torch.jit.load(path, map_location=device).eval()
        except RuntimeError as error:
            raise InputError(
                f"{path}: not TorchScript ({first_line(error)}); save one with torch.jit.script(module).save(PATH) or "
                "torch.jit.trace(module, example).save(PATH)"
            ) from None
