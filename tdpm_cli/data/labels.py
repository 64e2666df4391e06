"""Class labels of image files: from the folders that contain them, or from `dataset.json`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tdpm_cli.data.dataset_json import DatasetJson
from tdpm_cli.runtime.errors import InputError

MAX_CLASSES = 1 << 20


@dataclass(frozen=True)
class Classes:
    """The names of the classes, and the label of each image; both empty without classes."""

    names: list[str]
    labels: list[int]


def numbered_names(highest: int, source: str) -> list[str]:
    """Return the numbers 0 to `highest` as names of classes. Raises InputError for more than MAX_CLASSES."""
    if highest >= MAX_CLASSES:
        raise InputError(f"{source}: found the label {highest:,}; labels must be below {MAX_CLASSES:,}")
    return [str(k) for k in range(highest + 1)]


def classes_by_folder(images: Sequence[str], others: Sequence[str], source: str) -> Classes:
    """Return one class for each folder of the first level at which the images' folders differ.

    There are none if an image is outside such a folder. `others` are the names of all files, and one in each empty
    folder. Raises InputError for a folder of that level without images.
    """
    parents = [PurePosixPath(name).parts[:-1] for name in images]
    level = first_level(parents)
    if level is None:
        return Classes([], [])
    names = sorted({parent[level] for parent in parents})
    folders = [PurePosixPath(name).parts[:-1] for name in others]
    at_level = {parts[level] for parts in folders if len(parts) > level and parts[:level] == parents[0][:level]}
    if empty := sorted(at_level - set(names)):
        raise InputError(f"{source}: {len(empty)} of {len(at_level)} class folders have no images, such as "
                         f"{empty[0]!r}; remove them or add images")  # fmt: skip
    number = {name: k for k, name in enumerate(names)}
    return Classes(names, [number[parent[level]] for parent in parents])


def first_level(parents: Sequence[Sequence[str]]) -> int | None:
    """Return the first level at which the folders of images differ; None if an image is outside such a folder."""
    level = next((k for k, parts in enumerate(zip(*parents, strict=False)) if len(set(parts)) > 1), None)
    return None if level is None or any(len(parent) <= level for parent in parents) else level


def classes_by_json(images: Sequence[str], content: DatasetJson, source: str) -> Classes:
    """Return the labels in `dataset.json` or metadata. Raises InputError unless every image has one."""
    file = content.file
    if missing := [name for name in images if name not in content.labels]:
        raise InputError(f"{source}: {file} has no label for {len(missing):,} of {len(images):,} images, such as "
                         f"{missing[0]!r}; add labels or remove {file}")  # fmt: skip
    labels = [label for name in images if isinstance(label := content.labels[name], int)]
    if len(labels) < len(images) or any(isinstance(label, bool) or label < 0 for label in labels):
        raise InputError(
            f"{source}: {file} has labels that are not whole numbers from 0; correct them or remove {file}"
        )
    if content.classes is None:
        return Classes(numbered_names(max(labels), f"{source}: {file}"), labels)
    if not isinstance(content.classes, list) or len(content.classes) <= max(labels):
        raise InputError(f"{source}: {file} names fewer classes than its labels need ({max(labels) + 1})")
    return Classes([str(name) for name in content.classes], labels)
