"""Quarantine lists: the images of a dataset that training leaves out because they cannot be decoded."""

import json
from collections.abc import Mapping
from pathlib import Path

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_regular, write_text

SUFFIX = ".quarantine.jsonl"  # added to the path of the data
OLD_SUFFIX = ".quarantine.txt"  # of lists that tdpm 0.2.0 wrote
MAX_QUARANTINED_SHARE = 0.05  # of all images


def quarantine_path(data: Path) -> Path:
    """Return the path of the quarantine list of the data at `data`."""
    return data.resolve().with_name(data.resolve().name + SUFFIX)


def read_quarantine(data: Path, list_path: Path | None) -> frozenset[str]:
    """Return the names in a quarantine list: the one at `list_path`, or by default those beside the data."""
    if list_path is None:
        return frozenset(read_default(data))
    if not list_path.is_file():
        raise InputError(f"data.quarantine is {list_path}: no such file; `tdpm data verify` writes one")
    return frozenset(read_list(list_path))


def read_default(data: Path) -> dict[str, str]:
    """Return the names and reasons in the lists beside the data: that of tdpm 0.2.0, then the present one."""
    old = data.resolve().with_name(data.resolve().name + OLD_SUFFIX)
    return read_list(old) | read_list(quarantine_path(data))


def read_list(path: Path) -> dict[str, str]:
    """Return the names and reasons in a list, {} if it does not exist. Raises InputError for a damaged list."""
    if not path.is_file():
        return {}
    try:
        content = read_regular(path)
        if content.lstrip().startswith(b"{"):
            return dict(_entry(line) for line in content.splitlines() if line.strip())
        return _read_old(content.decode("utf-8"))
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        raise InputError(f"{path}: not a quarantine list, or damaged ({error}); remove it, and run `tdpm data verify` "
                         "again") from None  # fmt: skip


def write_list(path: Path, entries: Mapping[str, str]) -> None:
    """Write names and reasons as JSON lines. They are ASCII, so that every name can be read back."""
    lines = [json.dumps({"name": name, "reason": reason}) for name, reason in entries.items()]
    write_text(path, "".join(f"{line}\n" for line in lines))


def require_few_quarantined(data: Path, quarantined: int, total: int) -> None:
    """Raise InputError if more than MAX_QUARANTINED_SHARE of all images are quarantined."""
    if quarantined > MAX_QUARANTINED_SHARE * total:
        raise InputError(
            f"{data}: {quarantined:,} of {total:,} images are in quarantine (accepted: {MAX_QUARANTINED_SHARE:.0%}); "
            "repair or replace them, then run `tdpm data verify` again"
        )


def _entry(line: bytes) -> tuple[str, str]:
    entry = json.loads(line)
    return str(entry["name"]), str(entry["reason"])


def _read_old(text: str) -> dict[str, str]:
    """Return the entries of a list of tdpm 0.2.0: one name a line, then a tab and the reason; # begins a comment."""
    lines = (line.partition("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return {name: reason for name, _, reason in lines}
