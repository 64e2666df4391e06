"""The images in an output folder of `tdpm encode`, `decode`, `edit`, `interpolate` and `reconstruct`.

Until everything is complete, pieces are in `.making`; the manifest, `pictures.json`, is written last.
"""

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.data.dataset import pieces_of
from tdpm_cli.data.decode import from_tensor
from tdpm_cli.runtime.console import ProgressBar, print_line
from tdpm_cli.runtime.destinations import Source
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, replacing, write_text
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.sampling import output
from tdpm_cli.sampling.output import Layout, OutputFolder

MANIFEST, ARRAY, SHEET = "pictures.json", "x_T.npz", "sheet.png"
PLOT = ("error.png", "error.csv")
REQUIRED = ("model", "config", "steps", "spacing", "guidance_scale", "sampler", "pictures")  # keys of a manifest


def _names(manifest: Json) -> set[str]:
    """Return the names of the files that a manifest lists, and of those that its command always writes."""
    entries = manifest.get("pictures", [])
    listed = [entry.get("file") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    always = {"encode": (ARRAY,), "reconstruct": PLOT}.get(str(manifest.get("command")), ())
    return {SHEET, *always, *(name for name in listed if isinstance(name, str))}


IMAGES = Layout(
    MANIFEST,
    settings=".making/plan.json",
    pieces=".making",
    content=re.compile(r"x_T\.npz|sheet\.png|error\.(png|csv)|\d{6}(-\d+)?\.png"),
    names=_names,
)


@contextmanager
def open_image_folder(
    out: Path, settings: Json, overwrite: bool, inputs: Iterable[Source] = ()
) -> "Iterator[ImageFolder | None]":
    """Begin or continue a folder whose content depends on `settings`; yield None if it is complete.

    Raises InputError for a folder of other settings or of other files, for one that overlaps one of the `inputs`, and
    while another process fills it.
    """
    folder = OutputFolder(out, IMAGES)
    folder.check(settings, overwrite, inputs)
    folder.create()
    is_done = False
    try:
        folder.lock_all()
        folder.remove_partial_files()
        if not overwrite and _is_complete(folder):
            print_line(f"done before: {out} is complete; to compute it again, use --overwrite")
            yield None
        else:
            begun = folder.read_settings() if not overwrite else {}
            folder.begin(settings, overwrite, {"pictures": begun.get("pictures", [])})
            folder.manifest.unlink(missing_ok=True)  # of a folder that has lost an image
            yield ImageFolder(folder)
        if is_done := folder.manifest.is_file():
            folder.pieces().remove()
    finally:
        folder.locks.close(is_done)


class ImageFolder:
    """Fills an output folder: computes content in pieces, writes it, and ends with the manifest."""

    def __init__(self, folder: OutputFolder) -> None:
        self.folder, self.path = folder, folder.path

    def compute(self, label: str, n: int, batch: int, call: Callable[[slice], Tensor], unit: str = "img") -> Tensor:
        """Return the rows 0..n-1 of `call`, which computes `batch` at a time; skip pieces that exist under this label.

        Raises Interrupted when stopped.
        """
        pieces, stored = pieces_of(n, batch), self.folder.pieces(label)
        done = sum(len(piece) for piece in pieces if stored.has(piece))
        with ProgressBar(label, n, done, unit) as bar, Interruption() as interrupted:
            for piece in pieces:
                if stored.has(piece):
                    continue
                stored.write(piece, call(slice(piece.start, piece.stop)).numpy())
                bar.advance(len(piece))
                if interrupted.number:
                    raise Interrupted(interrupted.number, f"stopped; run the same command to continue {self.path}")
        return torch.from_numpy(stored.read_all(pieces))

    def write_images(self, raw: Tensor, names: Sequence[str]) -> None:
        """Write uint8 [n, C, H, W] as PNGs of these names, which the plan lists first."""
        self.folder.add_listed(names)
        for image, name in zip(raw, names, strict=True):
            with replacing(self.path / name) as part:
                from_tensor(image).save(part, format="PNG")

    def finish(self, settings: Json, images: Sequence[Mapping[str, object]]) -> None:
        """Write the manifest, which makes the folder complete, with an entry for each image."""
        write_text(self.folder.manifest, json.dumps({**settings, "pictures": list(images)}, indent=1))


def read_manifest(folder: Path, command: str, *keys: str) -> Json:
    """Return the manifest that `tdpm COMMAND` wrote, with these `keys`. Raises InputError for any other folder."""
    path, advice = folder / MANIFEST, f"create it with `tdpm {command}`"
    manifest = output.read_manifest(path, advice)
    if not manifest:
        raise InputError(f"{path}: no such file; {advice}")
    if manifest.get("command") != command:
        raise InputError(f"{path}: written by `tdpm {manifest.get('command')}`, not by `tdpm {command}`")
    output.require_keys(manifest, [*REQUIRED, *keys], path, advice)
    return manifest


def precision_of(out: Path, overwrite: bool) -> str | None:
    """Return the number format that a folder was begun with, if any: "auto" may choose another one later."""
    return output.precision_of(out, IMAGES, overwrite)


def _is_complete(folder: OutputFolder) -> bool:
    """Return whether the manifest and every file that it lists exist."""
    if not folder.manifest.is_file():
        return False
    manifest = folder.read_settings()
    names = (
        [ARRAY]
        if manifest.get("command") == "encode"
        else [entry.get("file", "") for entry in manifest.get("pictures", [])]
    )
    return all((folder.path / name).is_file() for name in names)
