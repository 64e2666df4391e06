"""WebDataset shards (Aizman et al. 2020): tar files of samples `key.jpg`, `key.cls`, `key.txt`.

The headers of each shard are indexed once; images are then read at random offsets, so that a run resumes exactly, as
with other data. Data that exceed a disk can be read from a mounted network folder or bucket: an epoch reads a few
shards at a time. Streams by URL are not supported, because a run on them could not resume exactly.
"""

import hashlib
import json
import tarfile
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import numpy as np
import torch

from tdpm_cli.config.constants import Crop
from tdpm_cli.config.types import ExternalPath, Positive, RawCondition
from tdpm_cli.data.captions import Uncaptioned, captioned_positions, lines_of
from tdpm_cli.data.decode import image_suffixes
from tdpm_cli.data.image_dataset import ImageDataset
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.data.quarantine import read_quarantine, require_few_quarantined
from tdpm_cli.runtime.caches import cache_folder, cached
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import MAX_FILE_BYTES, name_bytes, open_regular, require_regular, write_text

__all__ = ["webdataset"]

TAR_BLOCK = 512  # bytes that the content of a tar is padded to
MEMBERS = ("image", "cls", "txt")  # of a sample that are indexed


def webdataset(
    path: Path | None, raw_shape: Sequence[int] | None, *, crop: Crop = "centre", upscale: bool = False,
    window: Positive = 8, quarantine: ExternalPath | None = None, uncaptioned: Uncaptioned = "fail",
) -> ImageDataset:  # fmt: skip
    """Images of one shard, or of all `*.tar` in a folder; labels of `.cls`, captions of `.txt`.

    An epoch reads shards in random order, `window` of them at a time, and their samples in random order.
    """
    if path is None:
        raise InputError("no images; name a folder of .tar shards with --data PATH")
    return ImageDataset(Shards(path, window, Path(quarantine) if quarantine else None, uncaptioned), raw_shape,
                        crop=crop, upscale=upscale)  # fmt: skip


def recognises(path: Path) -> bool:
    """Return whether `path` is a tar, or a folder that contains tars."""
    return path.suffix == ".tar" or (path.is_dir() and any(path.glob("*.tar")))


class Member(NamedTuple):
    """A file in a tar: its name, and the offset and size of its content in bytes."""

    name: str
    offset: int
    size: int


Sample = dict[str, Member]  # by the names in MEMBERS


class Shards:
    """The images in tars, in the order of the shards and of the samples in them."""

    other_files: Sequence[str] = ()

    def __init__(
        self, path: Path, window: int, quarantine: Path | None = None, uncaptioned: Uncaptioned = "fail"
    ) -> None:
        self.path, self.window = path, window
        shards = sorted(path.glob("*.tar")) if path.is_dir() else [path]
        if not shards or not all(shard.is_file() for shard in shards):
            raise InputError(f"--data {path}: no .tar shards found")
        excluded = read_quarantine(path, quarantine)
        self._all = [(shard, sample) for shard in shards for sample in index_shard(shard)]
        self._samples = [(shard, sample) for shard, sample in self._all if _name(shard, sample) not in excluded]
        self.quarantined = len(self._all) - len(self._samples)
        require_few_quarantined(path, self.quarantined, len(self._all))
        if not self._samples:
            raise InputError(f"--data {path}: no images found in {len(shards)} shards; accepted: "
                             f"{' '.join(sorted(image_suffixes()))}")  # fmt: skip
        self.names = [_name(shard, sample) for shard, sample in self._samples]
        self.without_caption: Sequence[str] = ()
        self._has_captions = any("txt" in sample for _, sample in self._samples)
        if self._has_captions:
            self._find_missing_captions(uncaptioned)
        self._uncaptioned: frozenset[str] = frozenset(self.without_caption)
        self._labels = self._read_labels()
        highest = -1 if self._labels is None else int(self._labels.max())
        self.class_names = numbered_names(highest, f"--data {path}")

    def content(self, k: int) -> bytes:
        """Return the bytes of image k."""
        shard, sample = self._samples[k]
        return _read(shard, sample["image"])

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return labels and captions, where the shards have them."""
        raw_condition: RawCondition = {}
        if self._labels is not None:
            raw_condition["label"] = self._labels[torch.as_tensor(indices)]
        if self._has_captions:
            raw_condition["captions"] = [self._captions(k) for k in indices]
        return raw_condition

    def order(self, generator: np.random.Generator) -> np.ndarray:
        """Draw a permutation of the samples that reads `window` shards at a time."""
        shards = np.array([shard.name for shard, _ in self._samples])
        names = generator.permutation(np.unique(shards))
        windows = [np.flatnonzero(np.isin(shards, names[k : k + self.window]))
                   for k in range(0, len(names), self.window)]  # fmt: skip
        return np.concatenate([generator.permutation(window) for window in windows])

    def fingerprint(self) -> str:
        """Return a hash of the names, offsets and sizes of all files in the shards."""
        digest = hashlib.sha256()
        for shard, sample in self._all:
            members = sorted((key, tuple(member)) for key, member in sample.items())
            digest.update(name_bytes(f"{shard.name} {members}\n"))
        return digest.hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of the labels, names and contents of all images."""
        labels = [] if self._labels is None else self._labels.tolist()
        digest = hashlib.sha256(str(labels).encode())
        for k, name in enumerate(self.names):
            digest.update(name_bytes(name) + hashlib.sha256(self.content(k)).digest())
        return digest.hexdigest()

    def _find_missing_captions(self, uncaptioned: Uncaptioned) -> None:
        is_captioned = lambda k: "txt" in self._samples[k][1] and (uncaptioned == "fail" or self._caption_lines(k))
        self.without_caption = [name for k, name in enumerate(self.names) if not is_captioned(k)]
        kept = captioned_positions(f"--data {self.path}", self.names, self.without_caption, uncaptioned)
        self.names, self._samples = [self.names[k] for k in kept], [self._samples[k] for k in kept]

    def _read_labels(self) -> torch.Tensor | None:
        missing = [name for name, (_, sample) in zip(self.names, self._samples, strict=True) if "cls" not in sample]
        if len(missing) == len(self.names):
            return None
        if missing:
            raise InputError(f"--data {self.path}: {len(missing):,} of {len(self.names):,} samples have no label "
                             f"(.cls), such as {missing[0]}; add labels, or remove all of them")  # fmt: skip
        labels = []
        for (shard, sample), name in zip(self._samples, self.names, strict=True):
            text = _read(shard, sample["cls"]).strip()
            if not text.isdigit():
                raise InputError(f"{self.path}: the label (.cls) of {name} is {text[:20]!r}; expected a whole number")
            labels.append(int(text))
        return torch.tensor(labels)

    def _captions(self, k: int) -> tuple[str, ...]:
        if self.names[k] in self._uncaptioned:
            return ("",)
        if not (lines := self._caption_lines(k)):
            raise InputError(f"{self.path}: the caption of {self.names[k]} is empty; write one, remove the sample, or "
                             "set data.uncaptioned to drop or empty")  # fmt: skip
        return lines

    def _caption_lines(self, k: int) -> tuple[str, ...]:
        shard, sample = self._samples[k]
        try:
            return lines_of(_read(shard, sample["txt"]).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: the caption of {self.names[k]} is not UTF-8 text ({error})") from None


def index_shard(shard: Path) -> list[Sample]:
    """Return the samples of a shard that have an image. The index is kept in the user's cache.

    Raises InputError for a shard that is damaged or compressed, which cannot be read at random offsets.
    """
    stat = shard.stat()
    stamp = f"{' '.join(sorted(image_suffixes()))} {shard.resolve()} {stat.st_size} {stat.st_mtime_ns}"
    path = cache_folder("shards") / f"{hashlib.sha256(name_bytes(stamp)).hexdigest()}.json"
    return cached(
        path, _read_index, lambda: _scan(shard), lambda path, samples: write_text(path, json.dumps(samples))
    )  # fmt: skip


def _read_index(path: Path) -> list[Sample]:
    """Read an index from the cache. Raises an error of any class for a damaged one."""
    samples = [{key: Member(*member) for key, member in sample.items()} for sample in json.loads(path.read_text())]
    members = [member for sample in samples for member in sample.values()]
    if not all(isinstance(member.name, str) for member in members):
        raise TypeError("a name is not text")
    if not all(type(number) is int and number >= 0 for member in members for number in member[1:]):
        raise TypeError("a position is not a number")
    if not samples or not all("image" in sample for sample in samples):
        raise ValueError("a sample without an image")
    return samples


def _scan(shard: Path) -> list[Sample]:
    samples: dict[str, Sample] = {}
    try:
        require_regular(shard)
        with tarfile.open(shard, "r:") as archive:
            for entry in archive:
                name = PurePosixPath(entry.name)
                stem, _, suffix = name.name.partition(".")  # WebDataset's keys end at the first dot
                member = "image" if f".{suffix.rpartition('.')[2].lower()}" in image_suffixes() else suffix
                if entry.isfile() and stem and member in MEMBERS:
                    key = (name.parent / stem).as_posix()
                    samples.setdefault(key, {})[member] = Member(entry.name, entry.offset_data, entry.size)
            padded = lambda size: -(-size // TAR_BLOCK) * TAR_BLOCK
            end = max((entry.offset_data + padded(entry.size) for entry in archive.getmembers()), default=0)
        with open_regular(shard) as file:
            file.seek(end)
            is_complete = file.read(TAR_BLOCK) == bytes(TAR_BLOCK)  # a tar ends in blocks of zeros
    except (tarfile.TarError, OSError, ValueError) as error:
        raise InputError(f"{shard}: the shard is damaged ({error}); download it again or remove it") from None
    if not is_complete:
        raise InputError(f"{shard}: the shard is damaged, or truncated at byte {end:,}; download it again or remove it")
    return [sample for sample in samples.values() if "image" in sample]


def _name(shard: Path, sample: Sample) -> str:
    return f"{shard.name}/{sample['image'].name}"


def _read(shard: Path, member: Member) -> bytes:
    try:
        if member.size > MAX_FILE_BYTES:
            raise BadFile(shard, member.name, f"{member.size:,} bytes; at most {MAX_FILE_BYTES:,} are accepted")
        with open_regular(shard) as file:
            file.seek(member.offset)
            content = file.read(member.size)
    except OSError as error:
        raise BadFile(shard, member.name, f"cannot be read ({error.strerror})") from None
    if len(content) != member.size:
        raise BadFile(shard, member.name, "truncated", "download the shard again or remove it")
    return content
