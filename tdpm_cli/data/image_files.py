"""The image files in a folder or a zip, with their classes and captions."""

import hashlib
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from PIL import Image

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data import dataset_json
from tdpm_cli.data.captions import SUFFIX as TEXT_SUFFIX
from tdpm_cli.data.captions import Captions, Uncaptioned, captioned_positions, text_file
from tdpm_cli.data.containers import Container, count_by_suffix, open_container
from tdpm_cli.data.decode import decoding, image_suffixes, open_image, upright
from tdpm_cli.data.labels import Classes, classes_by_folder, classes_by_json
from tdpm_cli.data.metadata import metadata_files, read_metadata
from tdpm_cli.data.quarantine import read_quarantine, require_few_quarantined
from tdpm_cli.data.splits import ALL, choose_split, find_splits
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import name_bytes

SYSTEM_NAMES = frozenset(
    {"__MACOSX", "@eaDir", "#recycle", "#snapshot", "$RECYCLE.BIN", "System Volume Information", "lost+found"}
)
"""Folders that macOS, network drives and file systems add, with thumbnails and deleted files in them."""


@dataclass(frozen=True)
class CaptionRules:
    """Captions by image, in place of those in `dataset.json`; and what to do with images without one."""

    by_name: Mapping[str, object] | None = None
    uncaptioned: Uncaptioned = "fail"


@dataclass(frozen=True)
class Selection:
    """Which files are read: those of a split, without those of a quarantine list.

    Of folders that are splits, such as train and test, `split` is read: "all", one of them, or for None the one for
    training if that is clear. `quarantine` is by default the list beside the data, `suffixes` those of images.
    """

    quarantine: Path | None = None
    split: str | None = ALL
    suffixes: Collection[str] | None = None


class ImageFiles:
    """The images of a folder or a zip, sorted by name.

    Classes are the labels in `dataset.json`; without it, the folders of the first level at which images differ.
    Captions are those in `dataset.json`, {"captions": {name: text or [texts]}}, or the lines of a .txt beside each
    image. `metadata.jsonl` and `metadata.csv` replace a missing `dataset.json`. Hidden files, and those in folders of
    the system, are ignored. With `classed` False there are no classes. Raises InputError, naming `option`, for a
    missing or empty path, and for labels and captions that do not match the images.
    """

    def __init__(
        self, path: Path, option: str = "--data", *, classed: bool = True, selection: Selection = Selection(),
        captions: CaptionRules = CaptionRules(),
    ) -> None:  # fmt: skip
        if not path.exists():
            raise InputError(f"{option} {path}: no such file or folder")
        self.path, self.option, source = path, option, f"{option} {path}"
        self._container = open_container(path, option)
        stamps = self._container.stamps()
        visible, suffixes = [name for name in stamps if not _is_hidden(name)], selection.suffixes or image_suffixes()
        images = sorted(name for name in visible if PurePosixPath(name).suffix.lower() in suffixes)
        splits = find_splits(images)
        self.split = choose_split(splits, selection.split, source)
        self.splits: Sequence[str] = splits.names if splits else ()
        if splits:
            visible = [name for name in visible if splits.keeps(name, self.split)]
            images = [name for name in images if splits.keeps(name, self.split)]
        excluded = read_quarantine(path, selection.quarantine)
        self.names = [name for name in images if name not in excluded]
        self.quarantined = len(images) - len(self.names)
        require_few_quarantined(path, self.quarantined, len(images))
        if not self.names:
            among = f" among {len(visible):,} files ({count_by_suffix(visible)})" if visible else ""
            raise InputError(f"{source}: no images found{among}; accepted: {' '.join(sorted(suffixes))}")
        self._stamps = {name: stamps[name] for name in images}

        content, described_by = _described(self._container, stamps, visible)
        classes = Classes([], [])
        if classed and content.labels:
            classes = classes_by_json(self.names, content, source)
        elif classed and not content.unlabelled:
            empty_folders = [f"{name}/x" for name in self._container.folders if not _is_hidden(name)]
            names, others = self.names, [*visible, *empty_folders]
            if splits:  # their folders are no classes
                names = [splits.without(name) for name in names]
                others = [splits.without(name) for name in others if splits.keeps(name, self.split)]
            classes = classes_by_folder(names, others, source)
        self.class_names = classes.names
        self._labels = torch.tensor(classes.labels) if classes.names else None
        self._add_captions(visible, content.captions if captions.by_name is None else captions.by_name, captions)
        known = {*images, *described_by, *(text_file(name) for name in images if self._captions)}
        self.other_files = sorted(name for name in visible if name not in known)

    def __len__(self) -> int:
        return len(self.names)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return labels int64 [n] where the files have classes, and n tuples of captions where they have captions."""
        raw_condition: RawCondition = {}
        if self._labels is not None:
            raw_condition["label"] = self._labels[torch.as_tensor(indices)]
        if self._captions is not None:
            raw_condition["captions"] = [self._captions.of(self.names[k]) for k in indices]
        return raw_condition

    def restrict(self, wanted: Callable[[str], bool], description: str) -> None:
        """Keep the images whose names are wanted. Raises InputError with the description if there are none."""
        positions = [k for k, name in enumerate(self.names) if wanted(name)]
        if not positions:
            raise InputError(f"{self.path}: none of its {len(self.names):,} images is in {description}")
        self._keep(positions)

    def content(self, k: int) -> bytes:
        """Return the bytes of image k."""
        return self._container.read(self.names[k])

    def open(self, k: int, apply_orientation: bool) -> Image.Image:
        """Decode image k, and turn it by its EXIF orientation. Raises BadFile if it cannot be decoded."""
        try:
            with decoding():
                image = open_image(self.content(k))
                return upright(image) if apply_orientation else image
        except ValueError as error:
            raise BadFile(self.path, self.names[k], str(error)) from None

    def fingerprint(self) -> str:
        """Return a hash of the names and sizes (in a zip, checksums) of all images, quarantined ones included."""
        digest = hashlib.sha256(str(self.class_names).encode())
        for name, stamp in self._stamps.items():
            digest.update(name_bytes(f"{name}\0{stamp}\n"))
        return digest.hexdigest()

    def sha256(self) -> str:
        """Return the SHA-256 of names, contents and classes; in a zip, of its checksums in place of contents."""
        labels = [] if self._labels is None else self._labels.tolist()
        digest = hashlib.sha256(f"{self.class_names} {labels}".encode())
        for name in self.names:
            digest.update(name_bytes(f"{name}\0{self._stamps[name]}\n"))
            if self._container.has_checksums:
                continue
            try:
                digest.update(hashlib.sha256(self._container.read(name)).digest())
            except InputError as error:  # such as a broken link; decoding reports it
                digest.update(name_bytes(str(error)))
        return digest.hexdigest()

    def _add_captions(self, visible: Sequence[str], by_name: Mapping[str, object], rules: CaptionRules) -> None:
        text_files = {name for name in visible if name.endswith(TEXT_SUFFIX)}
        captions = Captions(self._container, self.names, text_files, by_name, rules.uncaptioned)
        has_captions = len(captions.missing) < len(self.names)  # text files may be notes that belong to no image
        self._captions = captions if has_captions else None
        self.without_caption: Sequence[str] = captions.missing if has_captions else ()
        if has_captions:
            source = f"{self.option} {self.path}"
            self._keep(captioned_positions(source, self.names, captions.missing, rules.uncaptioned))

    def _keep(self, positions: Sequence[int]) -> None:
        self.names = [self.names[k] for k in positions]
        self._labels = None if self._labels is None else self._labels[list(positions)]


def _described(
    container: Container, stamps: Collection[str], visible: Sequence[str]
) -> tuple[dataset_json.DatasetJson, Sequence[str]]:
    """Return the labels and captions that files state, and these files: `dataset.json`, or else metadata."""
    if dataset_json.NAME in stamps:
        return dataset_json.read_dataset_json(container), [dataset_json.NAME]
    if files := metadata_files(visible):
        return read_metadata(container, files), files
    return dataset_json.DatasetJson(), []


def _is_hidden(name: str) -> bool:
    return any(part.startswith(".") or part in SYSTEM_NAMES for part in PurePosixPath(name).parts)
