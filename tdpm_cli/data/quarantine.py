"""Quarantine lists: the images of a dataset that training leaves out because they cannot be decoded."""

from pathlib import Path

from tdpm_cli.runtime.errors import InputError

SUFFIX = ".quarantine.txt"  # added to the path of the data
MAX_QUARANTINED_SHARE = 0.05  # of all images
HEADER = "# Images that tdpm leaves out: one name a line, then a tab and the reason."


def quarantine_path(data: Path) -> Path:
    """Return the path of the quarantine list of the data at `data`."""
    return data.resolve().with_name(data.resolve().name + SUFFIX)


def read_quarantine(data: Path, list_path: Path | None) -> frozenset[str]:
    """Return the names in a quarantine list: the one at `list_path`, or by default the one beside the data."""
    path = list_path or quarantine_path(data)
    if not path.is_file():
        if list_path:
            raise InputError(f"data.quarantine is {list_path}: no such file; `tdpm data verify` writes one")
        return frozenset()
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not readable as text ({error}); run `tdpm data verify` again") from None
    return frozenset(line.split("\t")[0] for line in lines if line and not line.startswith("#"))


def require_few_quarantined(data: Path, quarantined: int, total: int) -> None:
    """Raise InputError if more than MAX_QUARANTINED_SHARE of all images are quarantined."""
    if quarantined > MAX_QUARANTINED_SHARE * total:
        raise InputError(
            f"{data}: {quarantined:,} of {total:,} images are in quarantine (accepted: {MAX_QUARANTINED_SHARE:.0%}); "
            "repair or replace them, then run `tdpm data verify` again"
        )
