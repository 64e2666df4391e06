"""Folders of pictures, in and out, for the verbs that use a model as an auto-encoder."""

import hashlib
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.config import load_config, presets
from tdpm_cli.data.decode import limit_pixels
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import IMAGE_SUFFIXES, ImageFiles
from tdpm_cli.runtime.console import Meter, say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, write_text, writing
from tdpm_cli.runtime.locks import WorkLocks
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.sampling import output
from tdpm_cli.sampling import sample_folder as samples
from tdpm_cli.sampling.build import build_space, open_dataset

MANIFEST = "pictures.json"
ARRAYS = "x_T.npz"
SHEET = "sheet.png"
PLOT = ("error.png", "error.csv")
UNDER_WAY, PLAN = ".making", "plan.json"  # pieces of what is not whole yet, and all that they depend on


@dataclass(frozen=True)
class Pictures:
    """`raw` uint8 [n, C, H, W], where each came from, and its class by name where all have one that is `known`."""

    raw: Tensor
    names: list[str]
    labels: list[str] | None


def read(text: str, shape: Sequence[int], n: int | None, known: Sequence[str]) -> Pictures:
    """The first n (or all) pictures of a folder, a zip, one file or a preset's data, brought to `shape` [C, H, W].

    Raises InputError where there are none, for a file that cannot be decoded, and for a model of something else.
    """
    if len(shape) != 3:
        raise InputError(f"the model's data have shape {list(shape)}: they are no pictures")
    limit_pixels()
    path = Path(text)
    data: Any
    if text in presets.preset_names() and not path.exists():
        data, config = open_dataset(load_config(text))
        if tuple(raw_shape := build_space(config).raw_shape) != tuple(shape):
            raise InputError(f"{text}: its data are {list(raw_shape)}, the model's {list(shape)}")
        names = [f"{text}[{k}]" for k in range(len(data))]
    else:
        data = ImageDataset(_files(path), shape, upscale=True)
        names = list(data.files.names)
    count = min(n or len(data), len(data))
    raw, given = data[range(count)]
    labels = [data.class_names[k] for k in given["label"].tolist()] if "label" in given and data.class_names else None
    fits = labels is not None and set(labels) <= set(known)
    return Pictures(raw, names[:count], labels if fits else None)


def _files(path: Path) -> ImageFiles:
    if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES:
        files = ImageFiles(path.parent, "IMAGES", classed=False)
        files.restrict(lambda name: name == path.name, path.name)
        return files
    return ImageFiles(path, "IMAGES")


@contextmanager
def filling(out: Path, plan: Mapping[str, Any], overwrite: bool) -> "Iterator[Filling | None]":
    """Make the folder `out`, or continue it; None where it is whole. `plan` is all that its content depends on.

    Raises InputError for a folder of another plan, or with files of others, and while another process fills it.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"{out}: it is a file; name a folder")
    plan = json.loads(json.dumps(plan))  # as it will be read
    before = {} if overwrite else begun(out)
    names = {path.name for path in out.iterdir()} if out.is_dir() else set()
    if names - {samples.LOCKS} and not names & {MANIFEST, UNDER_WAY}:
        raise InputError(f"{out}: it is not empty; name another folder")
    if before:
        output.reject_other_settings(out, before, plan, "pictures")
    with writing(out):
        out.mkdir(parents=True, exist_ok=True)
    locks, done = WorkLocks(out / samples.LOCKS), False
    try:
        if not locks.acquire(0):
            raise InputError(f"{out}: another process writes there; wait for it, or name another folder")
        for path in list(out.iterdir()):
            if path.name.endswith(".part") or (overwrite and _is_made(path.name)):  # .part: of one that was killed
                path.unlink()
        if overwrite:
            output.Pieces(out / UNDER_WAY).remove()
        if whole := not overwrite and _is_whole(out):
            say(f"done before: {out} holds all of it; to make it again give --overwrite")
            yield None
        else:
            (out / MANIFEST).unlink(missing_ok=True)  # of a folder that lost a picture
            write_text(out / UNDER_WAY / PLAN, json.dumps(plan))
            yield Filling(out)
        done = whole or (out / MANIFEST).is_file()
        if done:
            output.Pieces(out / UNDER_WAY).remove()
    finally:
        locks.close(done)


class Filling:
    """A folder while a verb fills it: what is made lies in pieces until all is there, and the manifest comes last."""

    def __init__(self, out: Path) -> None:
        self.out = out

    def by_pieces(self, label: str, n: int, batch: int, call: Callable[[slice], Tensor], unit: str = "img") -> Tensor:
        """What `call` makes of 0..n-1, `batch` at a time; what lies there under this label is not made again.

        Raises Interrupted when stopped.
        """
        pieces, made = output.pieces_of(n, batch), output.Pieces(self.out / UNDER_WAY / label)
        there = sum(len(piece) for piece in pieces if made.has(piece))
        with Meter(label, n, there, unit) as meter, Interruption() as interrupted:
            for piece in pieces:
                if made.has(piece):
                    continue
                made.write(piece, call(slice(piece.start, piece.stop)).numpy())
                meter.advance(len(piece))
                if interrupted.number:
                    raise Interrupted(
                        interrupted.number, f"stopped; {self.out} is sound, and the same command continues"
                    )
        return torch.from_numpy(made.read_all(pieces))

    def write_pictures(self, raw: Tensor, names: Sequence[str]) -> None:
        """Write uint8 [n, C, H, W] as PNGs of these names."""
        for image, name in zip(raw.permute(0, 2, 3, 1).numpy(), names, strict=True):
            with replacing(self.out / name) as part:
                Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(part, format="PNG")

    def finish(self, about: Mapping[str, Any], pictures: Sequence[Mapping[str, Any]]) -> None:
        """Write what the pictures are, last: a folder with a manifest is whole."""
        write_text(self.out / MANIFEST, json.dumps({**about, "pictures": list(pictures)}, indent=1))


def begun(out: Path) -> dict[str, Any]:
    """What was written, or begun, in a folder of these verbs; {} where nothing was. Raises InputError for a damaged
    file."""
    return output.read_json(out / MANIFEST) or output.read_json(out / UNDER_WAY / PLAN)


def _is_whole(out: Path) -> bool:
    """Whether there is a manifest, and all that it tells of."""
    if not (out / MANIFEST).is_file():
        return False
    told = begun(out)
    files = [ARRAYS] if told.get("verb") == "encode" else [each["file"] for each in told.get("pictures", [])]
    return all((out / name).is_file() for name in files)


def _is_made(name: str) -> bool:
    return name in (MANIFEST, ARRAYS, SHEET, *PLOT) or re.fullmatch(r"\d{6}(-\d+)?\.png", name) is not None


def read_manifest(folder: Path, verb: str) -> dict[str, Any]:
    """The manifest that `tdpm VERB` wrote. Raises InputError for a folder of anything else."""
    path = folder / MANIFEST
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(f"{folder}: no {MANIFEST} that can be read ({error}); make one with `tdpm {verb}`") from None
    if not isinstance(found, dict) or found.get("verb") != verb:
        raise InputError(f"{path}: it is not of `tdpm {verb}`")
    return found


def asked(
    coder: Any, labels: Sequence[str] | None, prompts: Sequence[str] | None, otherwise: Sequence[str] | None = None
) -> Sequence[str] | None:
    """What the user asked for, or `otherwise`. Raises InputError for an option or words that the model knows not."""
    option = coder.condition.option
    for given, text in ((labels, "--labels"), (prompts, "--prompt")):
        if given and text != option:
            raise InputError(f"{text}: the model takes {option or 'no condition'}; leave {text} out")
    chosen = labels or prompts or otherwise
    coder.cond(1, chosen)
    return chosen


def hash_of(content: Tensor, names: Sequence[str] = ()) -> str:
    """SHA-256 of what a verb is given: a tensor, and the names of what is in it."""
    digest = hashlib.sha256(content.contiguous().numpy().tobytes())
    digest.update("\n".join(names).encode(errors="replace"))
    return digest.hexdigest()


def precision_of(out: Path, overwrite: bool) -> str | None:
    """The number format in which a folder was begun, where it was: "auto" may find another one the next time."""
    return None if overwrite else begun(out).get("precision")


def psnr(a: Tensor, b: Tensor) -> Tensor:
    """Peak signal-to-noise ratio [n] in dB of uint8 images: 10 log10(255² / mean squared error); inf where equal."""
    error = (a.double() - b.double()).square().flatten(1).mean(1)
    return 10 * torch.log10(255**2 / error)


def among(labels: Sequence[str] | None, part: slice, one: bool = False) -> Any:
    """The labels of a piece, which go round through `labels`; or of `one` example."""
    if labels is None:
        return None
    chosen = [labels[k % len(labels)] for k in range(part.start, part.stop)]
    return chosen[0] if one else chosen
