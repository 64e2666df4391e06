"""WebDataset shards (Aizman et al. 2020): tar files of samples `key.jpg`, `key.cls`, `key.txt`, `key.json`.

Shards are indexed once, by their tar headers, and then read at random places, so that a run continues exactly, as
with any other data. Data that outgrow a disk are read where they lie, from a mounted network folder or bucket; the
order of an epoch stays within a few shards at a time for that. Streams by URL cannot be continued exactly, and are
not read.
"""

import hashlib
import json
import os
import tarfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from platformdirs import user_cache_path

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import Positive, RawCondition
from tdpm_cli.data.captions import Uncaptioned, keep, lines_of
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.image_files import MOST_BYTES, SUFFIXES, read_quarantine, refuse_many
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import BadFile, InputError

__all__ = ["webdataset"]


def webdataset(
    path: Path | None, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
    window: Positive = 8, quarantine: str | None = None, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Images of one shard, or of all `*.tar` in a folder; labels of `.cls`, captions of `.txt`.

    An epoch takes shards in random order, `window` of them at a time, and their samples in random order.
    """
    if path is None:
        raise InputError("no images: give a folder of .tar shards with --data PATH")
    return ImageDataset(Shards(path, window, Path(quarantine) if quarantine else None, uncaptioned), raw_shape,
                   crop=crop, upscale=upscale)  # fmt: skip


def recognises(path: Path) -> bool:
    """Whether `path` is a tar, or a folder that holds some."""
    return path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))


class Shards:
    """The images in tars by number, in the order of the shards and of their samples there."""

    other_files: Sequence[str] = ()

    def __init__(
        self, path: Path, window: int, quarantine: Path | None = None, uncaptioned: Uncaptioned = "fail"
    ) -> None:
        self.path, self.window = path, window
        shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not shards or not all(shard.is_file() for shard in shards):
            raise InputError(f"--data {path}: no .tar shards there")
        kept_out = read_quarantine(path, quarantine)
        found = [(shard, sample) for shard in shards for sample in samples_of(shard)]
        samples = [(shard, sample) for shard, sample in found if f"{shard.name}/{sample['image'][0]}" not in kept_out]
        self.quarantined = refuse_many(path, len(found) - len(samples), len(found))
        if not samples:
            raise InputError(
                f"--data {path}: no images in {len(shards)} shards; accepted: {' '.join(sorted(SUFFIXES))}"
            )
        self._samples, self._found = samples, found
        self.names = [f"{shard.name}/{sample['image'][0]}" for shard, sample in samples]
        self.without_caption: Sequence[str] = ()
        self._uncaptioned: frozenset[str] = frozenset()
        self._captioned = self._check_captions(uncaptioned)
        self._labels = self._read_labels()
        highest = -1 if self._labels is None else int(self._labels.max())
        self.class_names = numbered_names(highest, f"--data {path}")

    def content(self, k: int) -> bytes:
        """The bytes of image k."""
        shard, sample = self._samples[k]
        return _read(shard, *sample["image"])

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Labels and captions, where there are any."""
        found: RawCondition = {}
        if self._labels is not None:
            found["label"] = self._labels[torch.as_tensor(indices)]
        if self._captioned:
            found["captions"] = [self._caption(k) for k in indices]
        return found

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """A permutation of the samples that stays within `window` shards at a time."""
        shards = np.array([shard.name for shard, _ in self._samples])
        names = generator.permutation(np.unique(shards))
        windows = [np.flatnonzero(np.isin(shards, names[k : k + self.window]))
                   for k in range(0, len(names), self.window)]  # fmt: skip
        return np.concatenate([generator.permutation(window) for window in windows])

    def fingerprint(self) -> str:
        """Of the names, places and sizes of all files in the shards."""
        digest = hashlib.sha256()
        for shard, sample in self._found:
            digest.update(f"{shard.name} {sorted(sample.items())}\n".encode())
        return digest.hexdigest()

    def sha256(self) -> str:
        """Of the contents of all images."""
        labels = [] if self._labels is None else self._labels.tolist()
        digest = hashlib.sha256(str(labels).encode())
        for k, name in enumerate(self.names):
            digest.update(name.encode() + hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()

    def _check_captions(self, uncaptioned: Uncaptioned) -> bool:
        has = ["txt" in sample for _, sample in self._samples]
        if not any(has):
            return False
        without = [name for k, name in enumerate(self.names)
                   if not (has[k] and (uncaptioned == "fail" or self._captions(k)))]  # fmt: skip
        self.without_caption, self._uncaptioned = without, frozenset(without)
        kept = keep(self.path, self.names, self.without_caption, uncaptioned)
        self.names, self._samples = [self.names[k] for k in kept], [self._samples[k] for k in kept]
        return True

    def _read_labels(self) -> torch.Tensor | None:
        without = [name for name, (_, sample) in zip(self.names, self._samples, strict=True) if "cls" not in sample]
        if len(without) == len(self.names):
            return None
        if without:
            raise InputError(f"--data {self.path}: {len(without):,} of {len(self.names):,} samples have no label "
                             f"(.cls), such as {without[0]}; add theirs, or take all out")  # fmt: skip
        labels = []
        for (shard, sample), name in zip(self._samples, self.names, strict=True):
            text = _read(shard, *sample["cls"]).strip()
            if not text.isdigit():
                raise InputError(f"{self.path}: the label (.cls) of {name} is {text[:20]!r}: it must be a whole number")
            labels.append(int(text))
        return torch.tensor(labels)

    def _caption(self, k: int) -> tuple[str, ...]:
        if self.names[k] in self._uncaptioned:
            return ("",)
        if not (found := self._captions(k)):
            raise InputError(f"{self.path}: the caption of {self.names[k]} is empty; write one or take the sample out, "
                             "or set data.uncaptioned to drop or empty")  # fmt: skip
        return found

    def _captions(self, k: int) -> tuple[str, ...]:
        """What the .txt of sample k holds."""
        shard, sample = self._samples[k]
        try:
            return lines_of(_read(shard, *sample["txt"]).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: the caption of {self.names[k]} is not text in UTF-8 ({error})") from None


def samples_of(shard: Path) -> list[dict[str, tuple[str, int, int]]]:
    """(name, offset, size) of the files of each sample: of its "image", "cls" and "txt"; kept in the user's cache."""
    stat = shard.stat()
    stamp = f"{shard.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    cached = user_cache_path("tdpm") / "shards" / f"{hashlib.sha256(stamp.encode()).hexdigest()}.json"
    with suppress(OSError, ValueError):
        return [{key: tuple(place) for key, place in sample.items()} for sample in json.loads(cached.read_text())]
    found: dict[str, dict[str, tuple[str, int, int]]] = {}
    try:
        with tarfile.open(shard, "r:") as archive:  # compressed shards cannot be read at random places
            for member in archive:
                name = PurePosixPath(member.name)
                stem, _, suffix = name.name.partition(".")  # WebDataset's keys end at the first dot
                kind = "image" if f".{suffix.rpartition('.')[2].lower()}" in SUFFIXES else suffix
                if member.isfile() and stem and kind in ("image", "cls", "txt"):
                    key = (name.parent / stem).as_posix()
                    found.setdefault(key, {})[kind] = (member.name, member.offset_data, member.size)
            end = max((member.offset_data + -(-member.size // 512) * 512 for member in archive.getmembers()), default=0)
        with shard.open("rb") as file:
            file.seek(end)
            closed = file.read(512) == bytes(512)  # a tar ends in blocks of zeros
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(f"{shard}: the shard is damaged ({error}); fetch it again or take it out") from None
    if not closed:
        raise InputError(f"{shard}: the shard is damaged or cut short at byte {end:,}; fetch it again or take it out")
    samples = [sample for sample in found.values() if "image" in sample]
    with suppress(OSError):
        cached.parent.mkdir(parents=True, exist_ok=True)
        part = cached.with_name(f"{cached.name}.{os.getpid()}.part")
        part.write_text(json.dumps(samples))
        os.replace(part, cached)
    return samples


def _read(shard: Path, name: str, offset: int, size: int) -> bytes:
    try:
        if size > MOST_BYTES:
            raise BadFile(shard, name, f"{size:,} bytes; at most {MOST_BYTES:,} are accepted")
        with shard.open("rb") as file:
            file.seek(offset)
            content = file.read(size)
    except OSError as error:
        raise BadFile(shard, name, f"cannot be read ({error.strerror})") from None
    if len(content) != size:
        raise BadFile(shard, name, "it is cut short", "fetch the shard again or take it out")
    return content
