"""Where a command may write: not over its inputs, and not over a file that it did not write."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import writing

MARK = "written by tdpm"
_MARKS = re.compile(  # as each format holds them, so that a text that quotes the words has none
    rb"Comment\0written by tdpm"  # PNG
    rb"|written by tdpm\Z"  # the comment of a zip
    rb'|content="written by tdpm"'  # HTML
    rb'|"written_by": "tdpm '  # JSON
    rb"|made_by\W{1,8}tdpm \d"  # metadata of ONNX and torch.export
    rb'|"format":"tdpm'  # safetensors
    rb"|/extra/tdpm\.json|protocol\.npy"  # torch.export, statistics
)
SEARCHED_BYTES = 1 << 16  # at both ends of a file

Source = str | Path | None


def check_destination(
    output: Path, inputs: Iterable[Source] = (), *, option: str = "", models: Iterable[Source] = ()
) -> None:
    """Raise InputError for an output that is an input, is inside one or contains one, also through links.

    An input that does not exist, such as a preset's name, has no place. An output may be inside the run of one of the
    `models`, but not replace it.
    """
    place = os.path.realpath(output)
    for source, is_model in [*((source, False) for source in inputs), *((source, True) for source in models)]:
        if source is None or not os.path.exists(source):
            continue
        other = os.path.realpath(source)
        if place == other or (not is_model and os.path.commonpath([place, other]) in (place, other)):
            relation = "is" if place == other else "is inside" if place.startswith(other) else "contains"
            raise InputError(f"{option} {output}: it {relation} the input {source}; name another output".strip())


def check_file(
    option: str, output: Path | None, inputs: Iterable[Source] = (), *, models: Iterable[Source] = (),
    overwrite: bool = False,
) -> None:  # fmt: skip
    """Raise InputError for a file that a command may not write, so that it fails before its work.

    Such a file overlaps an input, cannot be written, or, unless `overwrite`, exists and was not written by tdpm.
    """
    if output is None:
        return
    check_destination(output, inputs, option=option, models=models)
    with writing(output):
        output.parent.mkdir(parents=True, exist_ok=True)
        if output.is_dir():
            raise InputError(f"{option} {output}: it is a folder; name a file")
        if not os.access(output.parent, os.W_OK):
            raise InputError(f"{option} {output}: its folder is not writable; use a writable path")
        if not overwrite and os.path.lexists(output) and not is_own(output):
            raise InputError(f"{option} {output}: found a file that tdpm did not write; name another file, or use "
                             "--overwrite to replace it")  # fmt: skip


def is_own(path: Path) -> bool:
    """Return whether tdpm wrote a file, by the mark that it leaves near the beginning or the end."""
    if path.is_symlink() or not path.is_file():
        return False
    with path.open("rb") as file:
        beginning = file.read(SEARCHED_BYTES)
        file.seek(max(path.stat().st_size - SEARCHED_BYTES, 0))
        return any(map(_MARKS.search, (beginning, file.read(SEARCHED_BYTES))))
