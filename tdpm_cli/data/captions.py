"""Captions of image files: from `dataset.json`, or from a text file beside each image."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Literal

from tdpm_cli.data.containers import Container
from tdpm_cli.runtime.errors import InputError

Uncaptioned = Literal["fail", "drop", "empty"]  # what to do with images without a caption, where others have one
SUFFIX = ".txt"


class Captions:
    """The captions of image files: those `by_name`, or else the lines of the text file of the same name.

    `missing` are the images without one. With `uncaptioned` "fail" text files are not opened to find empty ones.
    """

    def __init__(
        self, container: Container, names: Sequence[str], text_files: Collection[str],
        by_name: Mapping[str, object], uncaptioned: Uncaptioned,
    ) -> None:  # fmt: skip
        self._container, self._by_name = container, by_name
        if by_name:
            self.missing = [name for name in names if not _texts_in(by_name.get(name))]
        elif text_files:
            is_captioned = lambda name: text_file(name) in text_files and (uncaptioned == "fail" or self._lines(name))
            self.missing = [name for name in names if not is_captioned(name)]
        else:
            self.missing = list(names)
        self._empty = frozenset(self.missing)

    def of(self, name: str) -> tuple[str, ...]:
        """Return all captions of an image; "" alone if it has none. Raises InputError for an empty text file."""
        if name in self._empty:
            return ("",)
        if self._by_name:
            return _texts_in(self._by_name[name])
        lines = self._lines(name)
        if not lines:
            raise InputError(f"{self._container.path}: {text_file(name)} has no caption; write one, remove the image, "
                             "or set data.uncaptioned to drop or empty")  # fmt: skip
        return lines

    def _lines(self, name: str) -> tuple[str, ...]:
        path = text_file(name)
        try:
            return lines_of(self._container.read(path).decode("utf-8"))
        except UnicodeDecodeError as error:
            raise InputError(f"{self._container.path}: {path} is not UTF-8 text ({error}); repair it") from None


def captioned_positions(
    source: Path | str, names: Sequence[str], missing: Collection[str], uncaptioned: Uncaptioned
) -> list[int]:
    """Return the positions of the images to keep: all, or with "drop" those with a caption.

    Raises InputError, naming an image, if captions are `missing` and `uncaptioned` is "fail".
    """
    if missing and uncaptioned == "fail":
        raise InputError(
            f"{source}: {len(missing):,} of {len(names):,} images have no caption, such as {next(iter(missing))!r}; "
            "add captions, remove all captions, or set data.uncaptioned to drop or empty"
        )
    dropped = frozenset(missing) if uncaptioned == "drop" else frozenset()
    return [k for k, name in enumerate(names) if name not in dropped]


def text_file(image: str) -> str:
    """Return the name of the text file of an image."""
    return PurePosixPath(image).with_suffix(SUFFIX).as_posix()


def lines_of(text: str) -> tuple[str, ...]:
    """Return the captions in a text, one a line, without empty lines."""
    return tuple(line.strip() for line in text.splitlines() if line.strip())


def _texts_in(value: object) -> tuple[str, ...]:
    """Return the captions in a value of `dataset.json`; () for anything but a text or a list of texts."""
    texts = [value] if isinstance(value, str) else value
    if not isinstance(texts, list) or not all(isinstance(text, str) and text.strip() for text in texts):
        return ()
    return tuple(texts)
