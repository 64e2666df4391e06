"""Splits of image files: folders such as train and test at the first level at which images differ."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from tdpm_cli.data.labels import first_level
from tdpm_cli.runtime.errors import InputError, one_of

ALL = "all"  # every split
TRAINING = frozenset({"train", "training"})
OTHERS = frozenset({"test", "testing", "val", "valid", "validation", "dev", "eval"})


@dataclass(frozen=True)
class Splits:
    """The level of the folders that are splits, and their names."""

    level: int
    names: Sequence[str]

    def keeps(self, name: str, split: str) -> bool:
        """Return whether a file is in a split, or in none."""
        folders = PurePosixPath(name).parts[:-1]
        return split == ALL or len(folders) <= self.level or folders[self.level] == split

    def without(self, name: str) -> str:
        """Return the name of a file without the folder of its split."""
        *folders, file = PurePosixPath(name).parts
        return PurePosixPath(*folders[: self.level], *folders[self.level + 1 :], file).as_posix()


def find_splits(images: Sequence[str]) -> Splits | None:
    """Return the splits of images: there are some if at least two folders of a level are named as splits."""
    parents = [PurePosixPath(name).parts[:-1] for name in images]
    level = first_level(parents)
    if level is None:
        return None
    names = sorted({parent[level] for parent in parents})
    recognised = [name for name in names if name.lower() in TRAINING | OTHERS]
    return Splits(level, names) if len(recognised) > 1 else None


def choose_split(splits: Splits | None, split: str | None, source: str) -> str:
    """Return the split to read: `split`, or that for training if all other folders are splits that are not.

    Raises InputError, which asks for data.split, for anything else.
    """
    if splits is None:
        if split in (None, ALL):
            return ALL
        raise InputError(f"data.split is {split!r}, but {source} has no folders of splits, such as train and test; "
                         "leave it out")  # fmt: skip
    if split is not None:
        one_of("data.split", split, [*splits.names, ALL])
        return split
    training = [name for name in splits.names if name.lower() in TRAINING]
    if len(training) == 1 and all(name.lower() in TRAINING | OTHERS for name in splits.names):
        return training[0]
    raise InputError(f"{source}: found the folders {', '.join(splits.names)}, which look like splits of the data; set "
                     "data.split to one of them or to all, or name the folder of a split as the data")  # fmt: skip
