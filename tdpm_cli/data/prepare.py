"""tdpm data prepare: write images in one size to a zip, with labels and captions in `dataset.json`."""

import hashlib
import io
import json
import re
import zipfile
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypedDict, cast

from PIL import Image

from tdpm_cli.config.constants import COLOURS, CROPS, Crop, parse_size
from tdpm_cli.data import dataset_json, decode
from tdpm_cli.data.dataset import Dataset, FromImageFiles, pieces_of
from tdpm_cli.data.image_dataset import PREPARED
from tdpm_cli.data.survey import in_processes, is_all_grey, open_images, survey
from tdpm_cli.data.verify import listed
from tdpm_cli.runtime.console import ProgressBar, next_command, print_line
from tdpm_cli.runtime.destinations import MARK, check_file
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import (
    ENTRY_TIME,
    name_bytes,
    name_of_partial,
    read_regular,
    replacing,
    write_text,
    writing,
)
from tdpm_cli.runtime.signals import Interrupted, Interruption

MAX_BROKEN_SHARE = 0.001  # of the images, which are left out because they cannot be decoded
PART_IMAGES = 1000  # in a part of the zip, and in a folder of it
PARTS_FORMAT = 3  # of the files beside the parts
PLAN = "plan.json"
OWN = re.compile(rf"\d{{6}}\.(zip|json)|{re.escape(PLAN)}")  # the files in the folder of parts


@dataclass(frozen=True)
class PrepareOptions:
    """How to crop; whether to enlarge smaller images, or to leave them out; the mode and processes.

    The mode is "grey" or "rgb"; None chooses by the data.
    """

    crop: str = "centre"
    upscale: bool = False
    mode: str | None = None
    workers: int | None = None
    skip_small: bool = False
    overwrite: bool = False  # a file that tdpm did not write


@dataclass(frozen=True)
class Target:
    """How images are brought to one size and mode."""

    size: tuple[int, int]  # width, height
    channels: int
    crop: Crop
    upscale: bool

    @property
    def shape(self) -> tuple[int, int, int]:
        """[C, H, W]."""
        return self.channels, self.size[1], self.size[0]


class PartReport(TypedDict):
    """What is recorded of a part: the images that cannot be decoded and those that are too small, with each reason."""

    broken: dict[str, str]
    small: dict[str, str]


DEFAULTS = PrepareOptions()


def prepare(source: Path, out: Path, resolution: str, options: PrepareOptions = DEFAULTS) -> None:
    """Write the images of `source` as PNGs of one size to the zip `out`, in the layout of EDM and StyleGAN.

    The bytes of the zip depend on the source and the settings alone. Finished parts stay in a folder beside it until
    all are done, so that a repeated command continues. Raises InputError for settings or images that do not fit and if
    too many images are broken, and Interrupted when stopped.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out}: the output is a zip; use a name that ends in .zip")
    check_file("DEST", out, [source], overwrite=options.overwrite)
    size = parse_size(resolution)
    one_of("--crop", options.crop, CROPS)
    if options.mode is not None:
        one_of("--mode", options.mode, COLOURS)
    dataset, _ = open_images(source)
    channels = COLOURS[options.mode] if options.mode else _channels(dataset, source, options.workers)
    target = Target(size, channels, cast(Crop, options.crop), options.upscale)
    parts = out.with_name(out.name + ".parts")
    _start(parts, {
        "source": _source_hash(dataset), "size": size, "crop": options.crop,
        "upscale": options.upscale, "channels": channels,
        "examples": len(dataset), "pillow": Image.__version__, "parts": PARTS_FORMAT,
    })  # fmt: skip
    chunks = pieces_of(len(dataset), PART_IMAGES)
    _write_parts(dataset, chunks, parts, target, options.workers)

    reports: list[PartReport] = [json.loads(read_regular(_report(parts, k))) for k in range(len(chunks))]
    left_out = _left_out(reports, source, len(dataset), options.skip_small)
    _join_parts(out, parts, dataset, left_out, target.crop)
    _remove(parts)
    small = sum(len(report["small"]) for report in reports)
    note = f", {len(left_out):,} left out ({small:,} of them too small): {listed(left_out)}" if left_out else ""
    description = f"{size[0]}×{size[1]} {'grey' if channels == 1 else 'RGB'}"
    print_line(
        f"done: {len(dataset) - len(left_out):,} images of {description} in {out}{note}\n"
        + next_command("tdpm train --preset auto --data", out)
    )


def _left_out(reports: Sequence[PartReport], source: Path, total: int, skip_small: bool) -> dict[str, str]:
    """Return the images to leave out with the reason of each. Raises InputError for too many, or for all."""
    broken = {name: reason for report in reports for name, reason in report["broken"].items()}
    small = {name: reason for report in reports for name, reason in report["small"].items()}
    rejected = broken if skip_small else broken | small
    if len(rejected) > MAX_BROKEN_SHARE * total:
        advice = [f"repair them, or list them with `tdpm data verify {source}`"] if broken else []
        if small and not skip_small:
            advice.append(f"{len(small):,} are too small: --upscale enlarges them, --skip-small leaves them out")
        raise InputError(
            f"{source}: {len(rejected):,} of {total:,} images cannot be used (accepted: {MAX_BROKEN_SHARE:.1%}): "
            f"{listed(rejected)}; {'; '.join(advice)}"
        )
    if len(broken) + len(small) == total:
        raise InputError(f"{source}: all {total:,} images are too small; use --upscale or a smaller --resolution")
    return broken | small


def _start(parts: Path, settings: Mapping[str, object]) -> None:
    """Make the folder of parts, or keep it if it belongs to the same settings."""
    plan = parts / PLAN
    text = json.dumps(settings)
    with writing(parts):
        if parts.is_symlink() or (parts.exists() and not plan.is_file() and any(parts.iterdir())):
            raise InputError(f"{parts}: found files that tdpm did not write; move them away")
        if plan.is_file() and plan.read_text() != text:
            print_line(f"{parts}: found parts with other settings; starting again")
            _remove(parts)
        parts.mkdir(exist_ok=True)
    write_text(plan, text)


def _remove(parts: Path) -> None:
    """Remove what tdpm wrote to the folder of parts, and the folder if nothing else is in it."""
    for path in parts.iterdir():
        if OWN.fullmatch(name_of_partial(path.name) or path.name):
            path.unlink()
    with suppress(OSError):
        parts.rmdir()


def _write_parts(
    dataset: Dataset, chunks: Sequence[range], parts: Path, target: Target, workers: int | None
) -> None:  # fmt: skip
    missing = [number for number in range(len(chunks)) if not _report(parts, number).is_file()]
    done = len(dataset) - sum(len(chunks[number]) for number in missing)
    work = partial(_write_part, parts=parts, target=target)
    with ProgressBar("prepare images", len(dataset), done) as bar, Interruption() as interrupted, writing(parts):
        for number, _ in in_processes(work, dataset, [chunks[number] for number in missing], workers):
            bar.advance(len(chunks[missing[number]]))
            if interrupted.number and bar.done < bar.total:
                raise Interrupted(
                    interrupted.number, f"stopped; the finished parts are in {parts}: run the same command to continue"
                )


def _write_part(dataset: Dataset, indices: Sequence[int], *, parts: Path, target: Target) -> None:
    """Write the PNGs of some images to a zip, then a PartReport to a JSON file beside it."""
    path, report = _part(parts, indices[0] // PART_IMAGES), PartReport(broken={}, small={})
    with replacing(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for k in indices:
            try:
                image = _resized(dataset, k, target)
            except (ValueError, InputError) as error:
                report["small" if isinstance(error, decode.TooSmall) else "broken"][_name(dataset, k)] = str(error)
                continue
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            archive.writestr(zipfile.ZipInfo(_entry(k), ENTRY_TIME), buffer.getvalue())
    write_text(path.with_suffix(".json"), json.dumps(report))


def _resized(dataset: Dataset, k: int, target: Target) -> Image.Image:
    if isinstance(dataset, FromImageFiles):
        return decode.prepare(dataset.files.content(k), target.shape, target.crop, target.upscale, dataset.box)
    image = decode.flatten(decode.from_tensor(dataset[[k]][0][0]), target.channels)
    if not target.upscale:
        decode.require_size(image, target.size)
    return decode.fit(image, target.size, target.crop)


def _join_parts(out: Path, parts: Path, dataset: Dataset, left_out: Mapping[str, str], crop: Crop) -> None:
    """Write one zip of all parts, in order, and `dataset.json`."""
    kept = [k for k in range(len(dataset)) if _name(dataset, k) not in left_out]
    labels: list[tuple[str, int]] = []
    captions: list[tuple[str, list[str]]] = []
    for start in range(0, len(kept), PART_IMAGES):
        chunk = kept[start : start + PART_IMAGES]
        raw_condition = dataset.raw_condition(chunk)
        if "label" in raw_condition:
            labels += zip(map(_entry, chunk), raw_condition["label"].tolist(), strict=True)
        if "captions" in raw_condition:
            captions += zip(map(_entry, chunk), map(list, raw_condition["captions"]), strict=True)
    content: dict[str, object] = {"labels": labels or None, "prepared": PREPARED[crop]}
    content |= {"classes": list(dataset.class_names)} if labels else {}
    content |= {"captions": captions} if captions else {}
    with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number in range(-(-len(dataset) // PART_IMAGES)):
            with zipfile.ZipFile(_part(parts, number)) as part:
                for entry in part.infolist():
                    archive.writestr(zipfile.ZipInfo(entry.filename, ENTRY_TIME), part.read(entry))
        archive.comment = MARK.encode()
        archive.writestr(zipfile.ZipInfo(dataset_json.NAME, ENTRY_TIME), json.dumps(content))


def _channels(dataset: Dataset, path: Path, workers: int | None) -> int:
    """Return 1 if all images are grey, else 3."""
    if isinstance(dataset, FromImageFiles):
        return 1 if is_all_grey(survey(dataset, path, decode=False, workers=workers)) else 3
    return dataset.shape[0]


def _source_hash(dataset: Dataset) -> str:
    if isinstance(dataset, FromImageFiles):
        names = hashlib.sha256(name_bytes("\n".join(dataset.files.names))).hexdigest()
        return f"{dataset.files.fingerprint()} {names}"
    return hashlib.sha256(dataset[range(len(dataset))][0].numpy().tobytes()).hexdigest()


def _part(parts: Path, number: int) -> Path:
    return parts / f"{number:06d}.zip"


def _report(parts: Path, number: int) -> Path:
    return _part(parts, number).with_suffix(".json")


def _name(dataset: Dataset, k: int) -> str:
    return dataset.files.names[k] if isinstance(dataset, FromImageFiles) else str(k)


def _entry(k: int) -> str:
    return f"{k // PART_IMAGES:05d}/img{k:08d}.png"
