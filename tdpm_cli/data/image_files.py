"""Image files wherever they lie: in a folder, a zip or tars; their classes, captions, and what is kept aside."""

import hashlib
import json
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any, Protocol

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.captions import Uncaptioned, keep, lines_of
from tdpm_cli.data.decode import open_image
from tdpm_cli.data.decode import upright as turned
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import BadFile, InputError

SUFFIXES = {".png", ".jpg", ".jpeg", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
LABELS = "dataset.json"  # of EDM and StyleGAN: {"labels": [["00000/img00000000.png", 6], ...]}
QUARANTINE = ".quarantine.txt"  # added to the path of the data
QUARANTINED = 0.05  # largest share of images that a quarantine list may keep out
ENCRYPTED = 0x1  # a flag of a zip's entry
MOST_BYTES = 1 << 29  # of one file; more is a mistake, or a bomb


class Container(Protocol):
    """Files by name."""

    path: Path

    def stamps(self) -> Mapping[str, str]:
        """Every file, and what tells cheaply whether it has changed, such as its size."""

    def read(self, name: str) -> bytes:
        """The content of a file. Raises InputError where it cannot be had."""


class ImageFiles:
    """The image files of a container, sorted by `names`; their `class_names`, and the captions where there are any.

    Classes are the numbers of a `dataset.json`, or else, where all images lie in two or more folders of the first
    level, these folders in alphabetical order; folders that wrap everything, and hidden files, do not count.
    Captions are those of `dataset.json`, {"captions": {name: text or [texts]}}, or the lines of a .txt of the image's
    name. `quarantined` are the names that a list keeps out, `other_files` the files that are nothing of all that.
    Without `classed` there are no classes; `captions`, by image, stand for those of `dataset.json`. Raises InputError
    for a missing or empty path, and for labels and captions that do not match; of images that lack a caption where
    others have one, `uncaptioned` says what to do.
    """

    def __init__(
        self, path: Path, option: str = "--data", quarantine: Path | None = None, *, classed: bool = True,
        container: Container | None = None, suffixes: Collection[str] = SUFFIXES,
        captions: Mapping[str, Sequence[str]] | None = None, uncaptioned: Uncaptioned = "fail",
    ) -> None:  # fmt: skip
        if not path.exists():
            raise InputError(f"{option} {path}: no such file or folder")
        self.path, self.option = path, option
        self.container = container or (Folder(path) if path.is_dir() else Zip(path, option))
        stamps = self.container.stamps()
        _refuse_escapes(path, option, stamps)
        shown = [name for name in stamps if not _is_hidden(PurePosixPath(name))]
        images = sorted(name for name in shown if PurePosixPath(name).suffix.lower() in suffixes)
        self.kept_out = read_quarantine(path, quarantine)
        self.names = [name for name in images if name not in self.kept_out]
        self.quarantined = refuse_many(path, len(images) - len(self.names), len(images))
        if not self.names:
            raise InputError(f"{option} {path}: no images found; accepted: {' '.join(sorted(suffixes))}")
        self._stamps = {name: stamps[name] for name in images}
        self._json = self._read_json() if LABELS in stamps else {}
        self._json |= {"captions": dict(captions)} if captions is not None else {}
        by_json = bool(self._json.get("labels"))
        classed = classed and not self._json.get("unlabelled")  # its folders are no classes, then
        self.class_names, numbers = ([], []) if not classed else self._by_json() if by_json else self._by_folder(shown)
        self._labels = torch.tensor(numbers) if self.class_names else None
        self._texts = {PurePosixPath(name).with_suffix("").as_posix() for name in shown if name.endswith(".txt")}
        self.without_caption: Sequence[str] = ()
        self._uncaptioned: frozenset[str] = frozenset()
        self.has_captions = self._check_captions(uncaptioned)
        known = {*images, LABELS}
        if self.has_captions:
            known |= {PurePosixPath(name).with_suffix(".txt").as_posix() for name in images}
        self.other_files = sorted(name for name in shown if name not in known)

    def __len__(self) -> int:
        return len(self.names)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """{"label": int64 [n]} where the files have classes, {"captions": n tuples of texts} where they have those."""
        found: RawCondition = {}
        if self._labels is not None:
            found["label"] = self._labels[torch.as_tensor(indices)]
        if self.has_captions:
            found["captions"] = [self.captions_of(k) for k in indices]
        return found

    @property
    def labels(self) -> Tensor | None:
        """int64 [N]."""
        return self._labels

    def restrict(self, wanted: Callable[[str], bool], text: str) -> None:
        """Keep the images whose name is wanted. Raises InputError, saying `text`, where there is none."""
        kept = [k for k, name in enumerate(self.names) if wanted(name)]
        if not kept:
            raise InputError(f"{self.path}: none of its {len(self.names):,} images is in {text}")
        self._take(kept)

    def _take(self, kept: Sequence[int]) -> None:
        self.names = [self.names[k] for k in kept]
        self._labels = None if self._labels is None else self._labels[kept]

    def captions_of(self, k: int) -> tuple[str, ...]:
        """All captions of image k; "" alone where it has none and may."""
        name = self.names[k]
        if name in self._uncaptioned:
            return ("",)
        if captions := self._json.get("captions"):
            given = captions[name]
            return (given,) if isinstance(given, str) else tuple(given)
        found = self._beside(name)
        if not found:
            raise InputError(f"{self.path}: the .txt beside {name} holds no caption; write one, or take the image out, "
                             "or set data.uncaptioned to drop or empty")  # fmt: skip
        return found

    def _beside(self, name: str) -> tuple[str, ...]:
        """The captions in the .txt beside an image."""
        text = PurePosixPath(name).with_suffix(".txt").as_posix()
        try:
            return lines_of(self.container.read(text).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self.path}: {text} is not text in UTF-8 ({error}); repair it") from None

    def content(self, k: int) -> bytes:
        """The bytes of image k."""
        return self.container.read(self.names[k])

    def open(self, k: int, upright: bool) -> Image.Image:
        """Image k, decoded, as it lies or turned `upright`. Raises InputError, naming the file, where it cannot be."""
        try:
            image = open_image(self.content(k))
        except ValueError as error:
            raise BadFile(self.path, self.names[k], str(error)) from None
        return turned(image) if upright else image

    def fingerprint(self) -> str:
        """Of the names and sizes (in a zip, checksums) of all images, quarantined too: cheap, for noticing a change."""
        digest = hashlib.sha256(str(self.class_names).encode())
        for name, stamp in self._stamps.items():
            digest.update(f"{name}\0{stamp}\n".encode())
        return digest.hexdigest()

    def sha256(self) -> str:
        """Of the names, contents and classes of the images; of a zip, by its own checksums."""
        labels = [] if self._labels is None else self._labels.tolist()
        digest = hashlib.sha256(f"{self.class_names} {labels}".encode())
        for name in self.names:
            digest.update(f"{name}\0{self._stamps[name]}\n".encode())
            if not isinstance(self.container, Folder):
                continue
            try:
                digest.update(hashlib.sha256(self.container.read(name)).digest())
            except InputError as error:  # such as a link to nowhere, which decoding will name
                digest.update(str(error).encode())
        return digest.hexdigest()

    def _by_folder(self, shown: Sequence[str]) -> tuple[list[str], list[int]]:
        parents = [PurePosixPath(name).parts[:-1] for name in self.names]
        # Folders that wrap everything tell nothing apart.
        around = next((k for k, parts in enumerate(zip(*parents, strict=False)) if len(set(parts)) > 1), None)
        if around is None or any(len(parent) <= around for parent in parents):
            return [], []
        classes = sorted({parent[around] for parent in parents})
        folders = [PurePosixPath(name).parts[:-1] for name in [*shown, *self.container_folders()]]
        inside = {parts[around] for parts in folders if len(parts) > around and parts[:around] == parents[0][:around]}
        if empty := sorted(inside - set(classes)):
            raise InputError(
                f"{self.option} {self.path}: {len(empty)} of {len(inside)} class folders hold no image, such as "
                f"{empty[0]!r}; take them out or fill them"
            )
        number = {name: k for k, name in enumerate(classes)}
        return classes, [number[parent[around]] for parent in parents]

    def container_folders(self) -> list[str]:
        """A name inside each folder, so that empty ones are known too."""
        return [f"{name}/x" for name in getattr(self.container, "folders", []) if not _is_hidden(PurePosixPath(name))]

    def _read_json(self) -> dict[str, Any]:
        try:
            content = json.loads(self.container.read(LABELS))
            labels, captions = content.get("labels"), content.get("captions")
            return {"labels": dict(labels or []), "captions": dict(captions or []), "classes": content.get("classes"),
                    "unlabelled": "labels" in content and labels is None}  # fmt: skip
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(f"{self.path}: {LABELS} is damaged ({error}); repair it or take it out") from None

    def _by_json(self) -> tuple[list[str], list[int]]:
        label = self._json["labels"]
        if missing := [name for name in self.names if name not in label]:
            raise InputError(
                f"{self.path}: {LABELS} has no label of {len(missing):,} of {len(self.names):,} images, such as "
                f"{missing[0]!r}; add them or take {LABELS} out"
            )
        numbers = [label[name] for name in self.names]
        if not all(isinstance(number, int) and not isinstance(number, bool) and number >= 0 for number in numbers):
            raise InputError(f"{self.path}: {LABELS} has labels other than the numbers of classes; take it out")
        classes, highest = self._json["classes"], max(numbers)
        if classes is None:
            return numbered_names(highest, f"{self.path}: {LABELS}"), numbers
        if not isinstance(classes, list) or len(classes) <= highest:
            raise InputError(f"{self.path}: {LABELS} names fewer classes than its labels count ({highest + 1})")
        return [str(name) for name in classes], numbers

    def _check_captions(self, uncaptioned: Uncaptioned) -> bool:
        captions = self._json.get("captions")
        if captions:
            without = [name for name in self.names if not _is_caption(captions.get(name))]
        elif self._texts:
            has = lambda name: PurePosixPath(name).with_suffix("").as_posix() in self._texts
            # Looking into every file takes time, which the default does not.
            without = [name for name in self.names if not (has(name) and (uncaptioned == "fail" or self._beside(name)))]
        else:
            return False
        if len(without) == len(self.names):
            return False  # notes beside the images, not captions
        self.without_caption, self._uncaptioned = without, frozenset(without)
        self._take(keep(self.path, self.names, self.without_caption, uncaptioned, self.option))
        return True


def read_quarantine(path: Path, given: Path | None) -> frozenset[str]:
    """The names that a quarantine list keeps out: of the file `given`, or of the one beside the data."""
    file = given or beside(path)
    if not file.is_file():
        if given:
            raise InputError(f"data.quarantine is {given}: no such file; `tdpm data verify` writes one")
        return frozenset()
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{file}: cannot be read as text ({error})") from None
    return frozenset(line.split("\t")[0] for line in lines if line and not line.startswith("#"))


def refuse_many(path: Path, quarantined: int, total: int) -> int:
    """`quarantined`. Raises InputError where it is more than the share QUARANTINED of `total`."""
    if quarantined > QUARANTINED * total:
        raise InputError(f"{path}: {quarantined:,} of {total:,} images are in quarantine (accepted: "
                         f"{QUARANTINED:.0%}); repair or replace them, then run `tdpm data verify` again")  # fmt: skip
    return quarantined


def beside(path: Path) -> Path:
    """Where the quarantine list of the data at `path` lies."""
    return path.resolve().with_name(path.resolve().name + QUARANTINE)


class Folder:
    """All files below a folder, through links too, but through none twice."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.folders: list[str] = []

    def stamps(self) -> dict[str, str]:
        """Sizes."""
        return {path.relative_to(self.path).as_posix(): _size(path) for path in self._walk()}

    def read(self, name: str) -> bytes:
        """A file's content."""
        try:
            with open(os.path.join(self.path, name), "rb", buffering=0) as file:
                if (size := os.fstat(file.fileno()).st_size) > MOST_BYTES:
                    raise BadFile(self.path, name, f"{size:,} bytes; at most {MOST_BYTES:,} are accepted")
                return file.read()
        except OSError as error:
            raise BadFile(self.path, name, f"cannot be read ({error.strerror})") from None

    def _walk(self) -> Iterator[Path]:
        seen: set[str] = set()
        self.folders.clear()
        for place, folders, names in os.walk(self.path, followlinks=True):
            if (real := os.path.realpath(place)) in seen:
                folders.clear()
                continue
            seen.add(real)
            if place != str(self.path):
                self.folders.append(Path(place).relative_to(self.path).as_posix())
            yield from (Path(place, name) for name in names)


class Zip:
    """The files in a zip, which is never unpacked.

    What is not compressed is read at its place, which any process may do; only the rest needs a handle of the process.
    """

    def __init__(self, path: Path, option: str = "--data") -> None:
        self.path, self.option = path, option
        self._archive: tuple[int, zipfile.ZipFile] | None = None
        entries = self._zip().infolist()
        self._entries = {entry.filename: entry for entry in entries if not entry.is_dir()}
        self.folders = [entry.filename.rstrip("/") for entry in entries if entry.is_dir()]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_archive": None}

    def stamps(self) -> dict[str, str]:
        """Sizes and checksums."""
        return {name: f"{entry.file_size} {entry.CRC}" for name, entry in self._entries.items()}

    def read(self, name: str) -> bytes:
        """A file's content."""
        entry = self._entries[name]
        if entry.file_size > MOST_BYTES:
            reason = f"{entry.file_size:,} bytes unpacked; at most {MOST_BYTES:,} are accepted"
            raise BadFile(self.path, name, reason)
        try:
            if entry.compress_type == zipfile.ZIP_STORED and not entry.flag_bits & ENCRYPTED:
                return self._stored(entry)
            return self._zip().read(entry)
        except (zipfile.BadZipFile, zlib.error, OSError, EOFError, RuntimeError, ValueError) as error:
            raise BadFile(self.path, name, f"cannot be read ({error})", "repair the zip or take it out") from None

    def _stored(self, entry: zipfile.ZipInfo) -> bytes:
        """The content of an entry that is not compressed: five times as fast as zipfile, which is made for streams."""
        archive = self._archive[1] if self._archive else self._zip()  # of the parent, in a fork: reading at a place may
        assert archive.fp is not None, "the archive is open"
        handle = archive.fp.fileno()
        header = os.pread(handle, 30, entry.header_offset)  # the last two numbers: lengths of name and extra field
        if len(header) < 30 or header[:4] != b"PK\3\4":
            raise zipfile.BadZipFile("no header where the directory says")
        start = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        content = os.pread(handle, entry.file_size, start)
        if len(content) != entry.file_size or zlib.crc32(content) != entry.CRC:
            raise zipfile.BadZipFile(f"Bad CRC-32 for file {entry.filename!r}")
        return content

    def _zip(self) -> zipfile.ZipFile:
        # A handle must not be shared with a forked worker: both would move one file position.
        if self._archive is None or self._archive[0] != os.getpid():
            try:
                self._archive = os.getpid(), zipfile.ZipFile(self.path)
            except (zipfile.BadZipFile, OSError) as error:
                raise InputError(
                    f"{self.option} {self.path}: neither a folder nor a zip that can be read ({error})"
                ) from None
        return self._archive[1]


def _refuse_escapes(path: Path, option: str, names: Mapping[str, str]) -> None:
    """Raise InputError for names that lead out of their archive: nothing here is unpacked, but other tools do."""
    bad = [name for name in names if name.startswith(("/", "\\")) or ".." in name.replace("\\", "/").split("/")]
    if bad:
        raise InputError(f"{option} {path}: {len(bad):,} names lead out of it, such as {bad[0]!r}: not to be trusted")


def _size(path: Path) -> str:
    try:
        return str(path.stat().st_size)
    except OSError:
        return "missing"


def _is_hidden(path: PurePosixPath) -> bool:
    return any(part.startswith(".") or part == "__MACOSX" for part in path.parts)


def _is_caption(given: Any) -> bool:
    texts = [given] if isinstance(given, str) else given
    return isinstance(texts, list) and bool(texts) and all(isinstance(text, str) and text.strip() for text in texts)
