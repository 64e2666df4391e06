"""Read images unchanged, as scores and upsampling need them: no crop, no resize, no change of mode."""

from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path, PurePath
from typing import NamedTuple, cast

import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.datasets.npz import npz
from tdpm_cli.data.decode import bits_of, decoding, flatten, is_transparent, read_header, to_tensor
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import Json

MAX_BROKEN_SHARE = 0.001  # of the files that cannot be decoded; a larger share is not an accident
Recorded = int | Sequence[str]  # a label, or captions, of one sample

SAMPLES_ARRAY = "samples.npz"  # the file in which `tdpm sample --format npz` writes its samples


class ImageKind(NamedTuple):
    """Pixel format ("grey", "colour", or one that is not accepted) and (width, height) of an image file."""

    pixels: str
    size: tuple[int, int]


class StoredImages:
    """Images from files, unchanged: uint8 [C, H, W], all of one size, all grey or all colour, 8 bits, opaque.

    The constructor reads the header of every file. It skips files that are not images and lists them in `broken`.
    `recorded` are the labels or captions that `tdpm sample` drew images from, indexed by the number in a file's name.
    EXIF orientation is not applied. Raises InputError for images of mixed kinds and for too many broken files.
    """

    def __init__(self, files: ImageFiles, recorded: Mapping[str, Sequence[Recorded]] | None = None) -> None:
        self.files = files
        kinds = _kinds_of(files)
        self.broken = tuple(
            f"{name}: {kind}" for name, kind in zip(files.names, kinds, strict=True) if isinstance(kind, str)
        )
        self.file_count = len(kinds)
        reject_broken(str(files.path), self.broken, self.file_count)
        self.shape = _common_shape(files, kinds)
        self.class_names = list(files.class_names)
        self.prepared = "as stored (EXIF orientation is not applied)"
        self.notes: Sequence[str] = ()
        self.positions = [k for k, kind in enumerate(kinds) if not isinstance(kind, str)]
        self._recorded = _by_file_name(files.names, recorded or {})

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        raw = torch.stack([self._read(self.positions[k]) for k in indices])
        return raw, self.raw_condition(indices)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels and captions of the files; those that `tdpm sample` recorded come first."""
        positions = [self.positions[k] for k in indices]
        raw_condition = self.files.raw_condition(positions)
        if labels := self._recorded.get("label"):
            raw_condition["label"] = torch.tensor([labels[k] for k in positions])
        if captions := self._recorded.get("captions"):
            raw_condition["captions"] = [tuple(cast(Sequence[str], captions[k])) for k in positions]
        return raw_condition

    def fingerprint(self) -> str:
        """Hash of the names and sizes of the files: cheap, for noticing a change."""
        return self.files.fingerprint()

    def sha256(self) -> str:
        """Hash of the names, contents and classes of the files."""
        return self.files.sha256()

    def _read(self, position: int) -> Tensor:
        return to_tensor(flatten(self.files.open(position, apply_orientation=False), self.shape[0]))


def open_stored(path: Path, option: str, manifest: Json | None = None) -> StoredImages | TensorDataset:
    """Open a folder or zip of image files, an .npz, or a folder that `tdpm sample` wrote with this `manifest`.

    Raises InputError, naming `option`, for anything else.
    """
    manifest = manifest or {}
    if path.is_dir() and manifest.get("format") == "npz":
        if not (path / SAMPLES_ARRAY).is_file():
            raise InputError(
                f"{path / SAMPLES_ARRAY}: missing, because sampling stopped early; run the same `tdpm sample` again"
            )
        return npz(path / SAMPLES_ARRAY)
    if path.is_dir() or path.suffix.lower() == ".zip":
        return StoredImages(ImageFiles(path, option), manifest.get("conditions"))
    return npz(path)


def reject_broken(source: str, broken: Sequence[str], file_count: int) -> None:
    """Raise InputError if more than MAX_BROKEN_SHARE of `file_count` files cannot be decoded."""
    if len(broken) > MAX_BROKEN_SHARE * file_count:
        raise InputError(
            f"{source}: {len(broken):,} of {file_count:,} files cannot be decoded (accepted: {MAX_BROKEN_SHARE:.1%}): "
            + "; ".join(broken[:5]) + (" …" if len(broken) > 5 else "") + ". Repair or remove them."
        )  # fmt: skip


def _kinds_of(files: ImageFiles) -> list[ImageKind | str]:
    """Kind of every file, or the reason why it is not an image."""
    kinds: list[ImageKind | str] = []
    with ProgressBar(f"reading headers of {files.path}", len(files.names)) as bar, ThreadPoolExecutor() as pool:
        for kind in pool.map(partial(_kind_of, files), range(len(files))):
            kinds.append(kind)
            bar.advance(1)
    return kinds


def _kind_of(files: ImageFiles, k: int) -> ImageKind | str:
    try:
        with decoding():
            content = files.content(k)
            with read_header(content) as image:
                bits = bits_of(content, image)
                return ImageKind(f"{bits}-bit" if bits > 8 else _pixels_of(image), image.size)
    except BadFile as error:
        return error.reason
    except (ValueError, InputError) as error:
        return str(error)


def _pixels_of(image: Image.Image) -> str:
    if is_transparent(image):
        return "transparent"
    if image.mode in ("1", "L"):
        return "grey"
    return "colour" if image.mode in ("RGB", "P", "CMYK", "YCbCr") else f"mode {image.mode}"


def _common_shape(files: ImageFiles, kinds: Sequence[ImageKind | str]) -> tuple[int, int, int]:
    """[C, H, W] that all images share. Raises InputError if they differ, or are of a kind that cannot be scored."""
    counts = Counter(kind for kind in kinds if not isinstance(kind, str))
    first = lambda kind: files.names[kinds.index(kind)]
    (pixels, (width, height)), _ = counts.most_common(1)[0]
    if pixels not in ("grey", "colour"):
        count = sum(n for kind, n in counts.items() if kind.pixels == pixels)
        example = next(kind for kind in kinds if not isinstance(kind, str) and kind.pixels == pixels)
        raise InputError(
            f"{files.option} {files.path}: {count:,} of {len(kinds):,} images are {pixels}, such as {first(example)}; "
            "accepted: opaque images of 8 bits a channel. Convert them first."
        )
    if len(counts) > 1:
        listed = "; ".join(
            f"{count:,} {kind.pixels} {kind.size[0]}×{kind.size[1]}, such as {first(kind)}"
            for kind, count in counts.most_common(4)
        )
        raise InputError(f"{files.option} {files.path}: images of mixed kinds: {listed}. Use one size and one mode.")
    return (1 if pixels == "grey" else 3), height, width


def _by_file_name(names: Sequence[str], recorded: Mapping[str, Sequence[Recorded]]) -> dict[str, list[Recorded]]:
    """Recorded conditions by position; {} unless every file is named by a number that they cover."""
    numbers = [PurePath(name).stem for name in names]
    count = min((len(values) for values in recorded.values()), default=0)
    if not all(number.isdigit() and int(number) < count for number in numbers):
        return {}
    return {key: [values[int(number)] for number in numbers] for key, values in recorded.items()}
