"""tdpm data verify: decode every image, and list those that cannot be decoded for training to leave out."""

from pathlib import Path

from tdpm_cli.data.dataset import FromImageFiles
from tdpm_cli.data.quarantine import MAX_QUARANTINED_SHARE, quarantine_path, read_default, read_list, write_list
from tdpm_cli.data.survey import open_images, survey
from tdpm_cli.runtime.console import next_command, print_line
from tdpm_cli.runtime.destinations import check_destination, check_file
from tdpm_cli.runtime.errors import InputError

LISTED_FILES = 20  # broken files that a message names


def verify(path: Path, out: Path | None = None, workers: int | None = None) -> None:
    """Decode every image of the data at `path`.

    Raises InputError if some cannot be decoded, after it adds them to the quarantine list `out`, by default the one
    beside the data, which `tdpm train` reads.
    """
    dataset, _ = open_images(path)
    if not isinstance(dataset, FromImageFiles):
        print_line(f"{path}: all {len(dataset):,} examples can be read")
        return
    list_path = out or quarantine_path(path)
    check_destination(list_path, [path], option="--out" if out else "")
    check_file("--out", list_path, overwrite=True)
    for note in dataset.notes:
        print_line(f"note: {note}")
    infos = survey(dataset, path, decode=True, workers=workers)
    broken = {dataset.files.names[k]: info.broken for k, info in enumerate(infos) if info.broken is not None}
    quarantined = dataset.files.quarantined
    if not broken:
        more = f"; {quarantined:,} more are in quarantine" if quarantined else ""
        print_line(
            f"{path}: all {len(infos):,} images can be decoded{more}\n"
            + next_command("tdpm train --preset auto --data", path)
        )
        return
    entries = read_default(path) | read_list(list_path) | broken
    write_list(list_path, entries)
    if len(entries) <= MAX_QUARANTINED_SHARE * (len(infos) + quarantined):
        option = "" if list_path == quarantine_path(path) else f" --set data.quarantine={list_path}"
        advice = f"`tdpm train --data {path}{option}` leaves them out"
    else:
        advice = f"training leaves out at most {MAX_QUARANTINED_SHARE:.0%}, so repair or replace them"
    raise InputError(
        f"{path}: {len(broken):,} of {len(infos):,} images cannot be decoded: {listed(broken)}. "
        f"They are listed in {list_path}; {advice}"
    )


def listed(broken: dict[str, str]) -> str:
    """Return the first broken files and the reason of each as text."""
    text = "; ".join(f"{name}: {reason}" for name, reason in list(broken.items())[:LISTED_FILES])
    return text + (" …" if len(broken) > LISTED_FILES else "")
