"""Check that a text names something that can be scored, without opening it or importing PyTorch."""

from pathlib import Path

from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.config import presets
from tdpm_cli.runtime.errors import InputError, nearest

ACCEPTED = (
    "accepted: a folder or a zip of images, an .npz with `arr_0` (images) or `mu` and `sigma` (statistics), "
    "or the name of a preset for its data"
)


def check_source(option: str, text: str) -> None:
    """Raise InputError, naming `option`, if `text` names nothing that exists, or something of another type."""
    path = Path(text)
    if not text:
        raise InputError(f"{option} is empty; {ACCEPTED}")
    if (path / CHECKPOINTS).is_dir():
        raise InputError(f"{option} {text}: this is a run; use --model {text}")
    if path.is_file() and path.suffix.lower() not in (".zip", ".npz"):
        raise InputError(f"{option} {text}: unknown type of file; {ACCEPTED}")
    if not path.exists() and text not in (known := presets.preset_names()):
        hint = f"; draw samples with `tdpm sample --n 1000 {text}`" if option == "IMAGES" else ""
        raise InputError(
            f"{option} {text}: no such file, folder or preset{hint}{nearest(text, known)} "
            f"{ACCEPTED[0].upper()}{ACCEPTED[1:]}"
        )
