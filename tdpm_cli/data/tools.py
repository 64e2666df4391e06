"""tdpm data: look at a data set, verify every image of it, or prepare a zip of one resolution."""

import hashlib
import io
import json
import shutil
import zipfile
from collections import Counter
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
from PIL import Image

from tdpm_cli.config import registry
from tdpm_cli.config.constants import COLOURS, CROPS, IMAGES, Crop, parse_size
from tdpm_cli.data import decode
from tdpm_cli.data import inspect as survey
from tdpm_cli.data.dataset import Dataset, EncodedImages, FromImageFiles
from tdpm_cli.data.image_dataset import PREPARED
from tdpm_cli.data.image_files import LABELS, QUARANTINED, beside
from tdpm_cli.runtime import grids as pictures
from tdpm_cli.runtime.console import Meter, say, table
from tdpm_cli.runtime.errors import InputError, one_of
from tdpm_cli.runtime.files import replacing, writable, write_text, writing
from tdpm_cli.runtime.signals import Interrupted, Interruption

BROKEN = 0.001  # largest share of images that `prepare` leaves out because they cannot be decoded
SHOWN = 64  # images of a contact sheet
SIDE = 96  # pixels of each there
LISTED = 20  # broken files that a message names
CHUNK = 1000  # images of a part of a zip, and of a folder in it
OLD = (1980, 1, 1, 0, 0, 0)  # the time that every entry of a zip carries, so that its bytes are the same every time


def inspect(path: Path, sheet: Path | None = None, json_file: Path | None = None, workers: int | None = None) -> None:
    """Print what a data set is made of, and draw some of its images. Raises InputError for what cannot be read."""
    writable("--json", json_file)
    data, name = _open(path)
    lines: dict[str, Any] = {"read as": name}
    labels = _labels(data)
    if isinstance(data, FromImageFiles):
        lines |= survey.summary_of(_look_at_all(data, path, False, workers))
    else:
        shape = tuple(data[[0]][0].shape[1:])
        kind = "grey" if shape[0] == 1 else "RGB"
        lines |= {"images": f"{len(data):,}", "sizes": f"1: {shape[2]}×{shape[1]}", "modes": f"{kind}, 8 bits"}
    counts: dict[str, int] = {}
    if labels is not None:
        found = Counter(labels.tolist())
        counts = {label: found.get(k, 0) for k, label in enumerate(data.class_names)}
        lines["classes"] = f"{len(counts):,}, of {min(counts.values()):,} to {max(counts.values()):,} images"
    captions = data.raw_condition([0]).get("captions")
    lines["captions"] = f"such as {captions[0][0]!r}" if captions else "none"
    table(f"tdpm data inspect {path}", [{"": key, " ": str(value)} for key, value in lines.items()])
    if counts:
        table("classes", [{"class": label, "images": f"{count:,}"} for label, count in _balance(counts)])
    for note in data.notes:
        say(f"note: {note}")
    if json_file:
        write_text(json_file, json.dumps({"path": str(path), **lines, "class_counts": counts}, indent=1))
    place = pictures.save(_contact_sheet(data), sheet or Path(f"{path.resolve().stem}-contact.png"))
    say(f"contact sheet: {place}\nnext: tdpm data verify {path}")


def verify(path: Path, out: Path | None = None, workers: int | None = None) -> None:
    """Decode every image. Raises InputError where some cannot be, once they are listed in a quarantine list beside
    the data, or in `out`, which `tdpm train` honours."""
    data, _ = _open(path)
    if not isinstance(data, FromImageFiles):
        say(f"sound: all {len(data):,} examples of {path}")
        return
    place = out or beside(path)
    writable("--out", place)
    looks = _look_at_all(data, path, True, workers)
    broken = {data.files.names[k]: look.broken for k, look in enumerate(looks) if look.broken}
    if not broken:
        kept_out = f"; {data.files.quarantined:,} more are in quarantine" if data.files.quarantined else ""
        say(f"sound: all {len(looks):,} images of {path}{kept_out}\nnext: tdpm train --preset auto --data {path}")
        return
    before = [line for line in _lines(place) if not line.startswith("#")]
    listed = [f"{name}\t{' '.join(reason.split())}" for name, reason in broken.items()]
    head = "# Images that tdpm leaves out: a name a line, then a tab and why."
    write_text(place, "\n".join([head, *before, *listed]) + "\n")
    hint = "" if place == beside(path) else f" --set data.quarantine={place}"
    most = QUARANTINED * (len(looks) + data.files.quarantined)
    raise InputError(
        f"{path}: {len(broken):,} of {len(looks):,} images cannot be decoded: {_some(broken)}. They "
        f"are listed in {place}, "
        + (f"and `tdpm train --data {path}{hint}` leaves them out" if len(before) + len(listed) <= most else
           f"but are too many for training to leave out (accepted: {QUARANTINED:.0%}); repair or replace them")
    )  # fmt: skip


def prepare(
    source: Path,
    out: Path,
    resolution: str,
    crop: str = "centre",
    upscale: bool = False,
    mode: str | None = None,
    workers: int | None = None,
) -> None:
    """Write the images of `source`, brought to one size, as PNGs to the zip `out`, with labels and captions in
    `dataset.json`, as EDM and StyleGAN lay it out.

    The bytes of the zip depend on the source and the settings alone. Parts of it wait in a folder beside it, so that
    the same command continues. Raises InputError for what does not fit and where too many images are broken, and
    Interrupted when stopped.
    """
    if out.suffix.lower() != ".zip":
        raise InputError(f"{out}: the prepared data are a zip; name the file so")
    writable("DEST", out)
    size = parse_size(resolution)
    one_of("--crop", crop, CROPS)
    way = cast(Crop, crop)
    if mode is not None:
        one_of("--mode", mode, COLOURS)
    data, _ = _open(source)
    channels = COLOURS[mode] if mode else _channels(data, source, workers)
    settings = {
        "source": _names_hash(data), "size": size, "crop": crop, "upscale": upscale, "channels": channels,
        "examples": len(data), "pillow": Image.__version__,
    }  # fmt: skip
    place = out.with_name(out.name + ".parts")
    _begin(place, settings)

    chunks = [range(k, min(k + CHUNK, len(data))) for k in range(0, len(data), CHUNK)]
    todo = [number for number in range(len(chunks)) if not (place / f"{number:06d}.json").is_file()]
    done = len(data) - sum(len(chunks[number]) for number in todo)
    work = partial(_prepare_part, place=place, size=size, crop=way, upscale=upscale, channels=channels)
    with Meter(f"prepare {out.name}", len(data), done) as meter, Interruption() as interrupted, writing(place):
        for number, _ in survey.in_processes(work, data, [chunks[number] for number in todo], workers):
            meter.advance(len(chunks[todo[number]]))
            if interrupted.number and meter.done < meter.total:
                raise Interrupted(
                    interrupted.number, f"stopped; the parts are in {place}, and the same command continues"
                )
    broken: dict[str, str] = {}
    for number in range(len(chunks)):
        broken |= json.loads((place / f"{number:06d}.json").read_text())
    if len(broken) > BROKEN * len(data):
        raise InputError(
            f"{source}: {len(broken):,} of {len(data):,} images cannot be used (accepted: {BROKEN:.1%}): "
            f"{_some(broken)}. Repair them, or list them by `tdpm data verify {source}`, and run again"
            + ("; --upscale enlarges small ones" if any("smaller" in reason for reason in broken.values()) else "")
        )
    _assemble(out, place, data, broken, len(chunks), way)
    shutil.rmtree(place)
    left_out = f", {len(broken):,} left out: {_some(broken)}" if broken else ""
    shape = f"{size[0]}×{size[1]} {'grey' if channels == 1 else 'RGB'}"
    say(f"done: {len(data) - len(broken):,} images of {shape} in {out}{left_out}\n"
        f"next: tdpm train --preset auto --data {out}")  # fmt: skip


def _prepare_part(
    data: Dataset, indices: Sequence[int], *, place: Path, size: tuple[int, int], crop: Crop, upscale: bool,
    channels: int,
) -> None:  # fmt: skip
    """Write the PNGs of some images to a zip, and what was broken to a JSON beside it, which comes last."""
    part, broken = place / f"{indices[0] // CHUNK:06d}.zip", {}
    with replacing(part) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for k in indices:
            try:
                image = _image(data, k, size, crop, upscale, channels)
            except (ValueError, InputError) as error:
                broken[_name_of(data, k)] = str(error)
                continue
            buffer = io.BytesIO()
            image.save(buffer, format="PNG")
            archive.writestr(zipfile.ZipInfo(_entry(k), OLD), buffer.getvalue())
    write_text(part.with_suffix(".json"), json.dumps(broken))


def _image(
    data: Dataset, k: int, size: tuple[int, int], crop: Crop, upscale: bool, channels: int
) -> Image.Image:  # fmt: skip
    if isinstance(data, FromImageFiles):
        return decode.prepare(data.files.content(k), (channels, size[1], size[0]), crop, upscale, data.box)
    image = decode.flatten(_from_tensor(data[[k]][0][0]), channels)
    if not upscale and (image.width < size[0] or image.height < size[1]):
        raise ValueError(f"{image.width}×{image.height} pixels, smaller than {size[0]}×{size[1]}")
    return decode.fit(image, size, crop)


def _assemble(out: Path, place: Path, data: Dataset, broken: dict[str, str], count: int, crop: Crop) -> None:
    """One zip of all parts, in order, and `dataset.json`."""
    kept = [k for k in range(len(data)) if _name_of(data, k) not in broken]
    labels: list[Any] = []
    captions: list[Any] = []
    for start in range(0, len(kept), CHUNK):
        chunk = kept[start : start + CHUNK]
        conditions = data.raw_condition(chunk)
        if "label" in conditions:
            labels += [[_entry(k), int(label)] for k, label in zip(chunk, conditions["label"], strict=True)]
        if "captions" in conditions:
            captions += [[_entry(k), list(texts)] for k, texts in zip(chunk, conditions["captions"], strict=True)]
    says: dict[str, Any] = {"labels": labels or None, "prepared": PREPARED[crop]}
    says |= {"classes": list(data.class_names)} if labels else {}
    says |= {"captions": captions} if captions else {}
    with replacing(out) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for number in range(count):
            with zipfile.ZipFile(place / f"{number:06d}.zip") as part:
                for entry in part.infolist():
                    archive.writestr(zipfile.ZipInfo(entry.filename, OLD), part.read(entry))
        archive.writestr(zipfile.ZipInfo(LABELS, OLD), json.dumps(says))


def _begin(place: Path, settings: dict[str, Any]) -> None:
    """The folder of parts of a preparation with these settings; one of other settings is begun anew."""
    plan = place / "plan.json"
    text = json.dumps(settings)
    with writing(place):
        if place.exists() and not plan.is_file() and any(place.iterdir()):
            raise InputError(f"{place}: it holds files that tdpm did not write; move it away")
        if plan.is_file() and plan.read_text() != text:
            say(f"{place}: parts of a preparation with other settings; beginning anew")
            shutil.rmtree(place)
        place.mkdir(exist_ok=True)
    write_text(plan, text)


def _open(path: Path) -> tuple[Dataset, str]:
    """The data set at `path`, and the part that reads it."""
    if not path.exists():
        raise InputError(f"{path}: no such file or folder; accepted: {IMAGES}")
    name = registry.recognise(path, "images")
    data = registry.load("dataset", name)(path, None)
    if isinstance(data, EncodedImages):
        raise InputError(f"{path}: it holds latents, not images; name the images that they were encoded from")
    if not isinstance(data, FromImageFiles) and len(data[[0]][0].shape) != 4:
        raise InputError(f"{path}: it holds points, not images")
    return data, name


def _look_at_all(data: Dataset, path: Path, whole: bool, workers: int | None) -> list[survey.Look]:
    chunks = [range(k, min(k + survey.CHUNK, len(data))) for k in range(0, len(data), survey.CHUNK)]
    looks: dict[int, list[survey.Look]] = {}
    with Meter(f"looking at {path.name}", len(data)) as meter, Interruption() as interrupted:
        for number, found in survey.in_processes(partial(survey.look_at, whole=whole), data, chunks, workers):
            looks[number] = found
            meter.advance(len(found))
            if interrupted.number:
                raise Interrupted(interrupted.number, "stopped; nothing was written")
    return [look for number in range(len(chunks)) for look in looks[number]]


def _channels(data: Dataset, path: Path, workers: int | None) -> int:
    """1 where all images are grey, else 3."""
    if not isinstance(data, FromImageFiles):
        return int(data[[0]][0].shape[1])
    looks = _look_at_all(data, path, False, workers)
    return (
        1 if all(look.mode in ("1", "L", "LA") or look.mode.startswith("I") for look in looks if not look.broken) else 3
    )


def _contact_sheet(data: Dataset) -> Image.Image:
    """Some images drawn at random, each in a square."""
    count = min(SHOWN, len(data))
    chosen = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    columns = min(8, count)
    sheet = Image.new("RGB", (columns * (SIDE + 4) + 4, -(-count // columns) * (SIDE + 4) + 4), (255, 255, 255))
    for position, k in enumerate(sorted(chosen)):
        left, top = 4 + position % columns * (SIDE + 4), 4 + position // columns * (SIDE + 4)
        try:
            image = (
                decode.open_image(data.files.content(k))
                if isinstance(data, FromImageFiles)
                else _from_tensor(data[[k]][0][0])
            )
            image = decode.flatten(image, 3)
        except (ValueError, InputError):
            image = Image.new("RGB", (SIDE, SIDE), (255, 0, 0))  # what cannot be decoded
        large = max(image.size) > SIDE
        scale = SIDE / max(image.size) if large else max(SIDE // max(image.size), 1)
        shown = (max(round(image.width * scale), 1), max(round(image.height * scale), 1))
        image = image.resize(shown, Image.Resampling.LANCZOS if large else Image.Resampling.NEAREST)
        sheet.paste(image, (left + (SIDE - shown[0]) // 2, top + (SIDE - shown[1]) // 2))
    return sheet


def _from_tensor(raw: torch.Tensor) -> Image.Image:
    pixels = raw.permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)


def _labels(data: Dataset) -> torch.Tensor | None:
    everything = range(len(data))
    if "label" not in data.raw_condition([0]):
        return None
    return torch.cat([data.raw_condition(everything[k : k + 10_000])["label"] for k in range(0, len(data), 10_000)])


def _balance(counts: dict[str, int]) -> list[tuple[str, int]]:
    """All classes where they are few, else the largest and the smallest."""
    ordered = sorted(counts.items(), key=lambda item: -item[1])
    return ordered if len(ordered) <= 2 * LISTED else [*ordered[:LISTED], *ordered[-LISTED:]]


def _names_hash(data: Dataset) -> str:
    if not isinstance(data, FromImageFiles):
        return hashlib.sha256(data[range(len(data))][0].numpy().tobytes()).hexdigest()
    names = hashlib.sha256("\n".join(data.files.names).encode()).hexdigest()
    return f"{data.files.fingerprint()} {names}"


def _name_of(data: Dataset, k: int) -> str:
    return str(data.files.names[k]) if isinstance(data, FromImageFiles) else str(k)


def _entry(k: int) -> str:
    return f"{k // CHUNK:05d}/img{k:08d}.png"


def _some(broken: dict[str, str]) -> str:
    listed = "; ".join(f"{name}: {reason}" for name, reason in list(broken.items())[:LISTED])
    return listed + (" …" if len(broken) > LISTED else "")


def _lines(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines() if path.is_file() else []
