"""Output folders that an interrupted command continues: a manifest, locks, and a file for each piece of work."""

import json
import os
import re
import shutil
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from annotated_types import Interval
from pydantic import Field

from tdpm_cli.config import external
from tdpm_cli.config.legacy import upgrade_record
from tdpm_cli.config.types import LARGEST
from tdpm_cli.runtime.destinations import Source, check_destination
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, name_of_partial, replacing, write_text, writing
from tdpm_cli.runtime.locks import MAX_NUMBERS, WorkLocks
from tdpm_cli.runtime.records import Natural, Record, read_record

LOCKS = ".locks"
OVERWRITE = "name another folder, or remove this one"
MAY_DIFFER = ("config", "model", "tdpm")  # keys that may differ between the commands that fill one folder


@dataclass(frozen=True)
class Layout:
    """The names of the files in one kind of output folder."""

    manifest: str  # describes the content
    settings: str  # everything that the content depends on; the first file that is written
    pieces: str  # the folder of pieces, which exists until the content is complete
    content: re.Pattern[str]  # the names that files of the content can have
    names: Callable[[Json], Container[str]]  # manifest -> the files that it lists, which --overwrite removes


class OutputFolder:
    """A folder whose content depends on settings alone, so that repeating the command continues it."""

    def __init__(self, path: Path, layout: Layout) -> None:
        self.path, self.layout = path, layout

    @property
    def manifest(self) -> Path:
        """The file that describes the content."""
        return self.path / self.layout.manifest

    @cached_property
    def locks(self) -> WorkLocks:
        """The locks by which processes share the work."""
        return WorkLocks(self.path / LOCKS)

    def pieces(self, label: str = "") -> "Pieces":
        """Return the pieces of one part of the content."""
        return Pieces(self.path / self.layout.pieces / label)

    def read_settings(self) -> Json:
        """Return the settings of the content; {} for a new folder. Raises InputError for a damaged file."""
        settings = self.path / self.layout.settings
        return read_manifest(self.manifest, OVERWRITE) or read_manifest(settings, OVERWRITE)

    def check(self, settings: Json, overwrite: bool, inputs: Iterable[Source] = ()) -> None:
        """Raise InputError for a path that cannot become this folder, before anything is written.

        Such a path overlaps one of the `inputs`, is a file, a folder of files that tdpm did not write, or, unless
        `overwrite`, content of other settings.
        """
        check_destination(self.path, inputs)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"{self.path}: this is a file; name a folder")
        if self.manifest.is_dir():
            raise InputError(f"{self.manifest}: found a folder, which tdpm did not create; move it away")
        names = {path.name for path in self.path.iterdir()} if self.path.is_dir() else set()
        own = {self.layout.manifest, Path(self.layout.settings).parts[0]}
        if not names & own and not all(map(self._is_temporary, names)):
            raise InputError(f"{self.path}: not empty, and without {self.layout.manifest}; name another folder")
        if (pieces := self.path / self.layout.pieces).is_symlink():
            raise InputError(f"{pieces}: found a link, which tdpm did not create; move it away")
        if not overwrite:
            self._reject_other_settings(settings)

    def listed(self) -> set[str]:
        """Return the files of the folder that the manifest lists, or the settings, if there is no manifest yet."""
        content = self.read_settings()
        return self._files(self.layout.names(content)) if content else set()

    def _files(self, names: Container[str]) -> set[str]:
        return {name for name in os.listdir(self.path) if name in names} if self.path.is_dir() else set()

    def create(self) -> None:
        """Make the folder if it is missing."""
        with writing(self.path):
            self.path.mkdir(parents=True, exist_ok=True)

    def begin(self, settings: Json, overwrite: bool, record: Mapping[str, object] | None = None) -> None:
        """Write the settings, and a `record` that they determine. With `overwrite`, first remove the content.

        The caller holds the locks. Raises InputError if another process has begun the folder with other settings, and
        for a file that has the name of one to be written, but that tdpm did not write.
        """
        if overwrite:
            self._remove_content()
        self._reject_other_settings(settings)  # another process may have begun meanwhile
        before, content = self.listed(), {**settings, **(record or {})}
        self.reject_unlisted(self._files(self.layout.names(content)) - before)
        if model := settings.get(external.MODEL):
            external.remember({external.MODEL: str(model)})  # which the user named
        write_text(self.path / self.layout.settings, json.dumps(content, indent=1))

    def add_listed(self, names: Sequence[str]) -> None:
        """List more files in the settings, as "pictures", before they are written. Raises as `begin` does."""
        self.reject_unlisted(set(names) - self.listed())
        path = self.path / self.layout.settings
        content = read_manifest(path, OVERWRITE)
        entries = [*content.get("pictures", []), *({"file": name} for name in names)]
        write_text(path, json.dumps({**content, "pictures": entries}, indent=1))

    def reject_unlisted(self, names: Iterable[str]) -> None:
        """Raise InputError if the folder contains one of these names, which no manifest lists."""
        for name in sorted(names):
            if os.path.lexists(self.path / name):
                raise InputError(f"{self.path / name}: found a file that tdpm did not write; move it away, or name "
                                 "another folder")  # fmt: skip

    def lock_all(self) -> None:
        """Lock every piece. Raises InputError if another process holds one."""
        with self.locks.beginning():
            if not self.locks.acquire(0, MAX_NUMBERS):
                raise InputError(f"{self.path}: another process writes there; wait for it, or name another folder")

    def remove_partial_files(self) -> None:
        """Remove files that a killed process left incomplete. The caller holds all locks."""
        for path in self.path.iterdir():
            if self._is_partial(path.name):
                path.unlink()

    def _reject_other_settings(self, settings: Json) -> None:
        before, now = self.read_settings(), json.loads(json.dumps(settings))
        if not before:
            return
        differences = [
            f"{key}: {before.get(key)!r} there, {now[key]!r} here"
            for key in now
            if key not in MAY_DIFFER and before.get(key) != now[key]
        ]
        if differences:
            listed = "\n  ".join(differences)
            raise InputError(f"{self.path} has other settings:\n  {listed}\nName another folder, or use --overwrite.")

    def _remove_content(self) -> None:
        listed = self.listed()
        self.pieces().remove()
        for name in (*listed, self.layout.manifest):  # the manifest last: it lists what is left after a crash
            (self.path / name).unlink(missing_ok=True)

    def _is_temporary(self, name: str) -> bool:
        return name in (self.layout.pieces, LOCKS) or self._is_partial(name)

    def _is_partial(self, name: str) -> bool:
        complete = name_of_partial(name)
        return complete is not None and (
            complete == self.layout.manifest or self.layout.content.fullmatch(complete) is not None
        )


class Pieces:
    """The rows of an array, one file for each piece, until all exist."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def has(self, piece: range) -> bool:
        """Return whether the file of this piece exists."""
        return self._path(piece).is_file()

    def write(self, piece: range, rows: np.ndarray) -> None:
        """Write the rows of a piece, completely or not at all."""
        with replacing(self._path(piece)) as part, part.open("wb") as file:
            np.save(file, rows, allow_pickle=False)

    def read_all(self, pieces: Sequence[range]) -> np.ndarray:
        """Return the rows of all pieces."""
        return np.concatenate([np.load(self._path(piece), allow_pickle=False) for piece in pieces])

    def remove(self) -> None:
        """Remove the files of all pieces."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, piece: range) -> Path:
        return self.folder / f"{piece.start:09d}-{piece.stop:09d}.npy"


class Conditions(Record):
    """What samples were drawn from: labels, or captions."""

    label: list[Annotated[int, Interval(ge=0, le=LARGEST)]] = Field(default_factory=list)
    captions: list[list[str]] = Field(default_factory=list)


class StoredCondition(Record):
    """The keys of the section `condition` of a stored config that are read without loading the config."""

    names: list[str] | None = None


class StoredConfig(Record):
    """A stored config; `load_stored_config` checks the rest."""

    condition: StoredCondition = StoredCondition()


class Picture(Record):
    """The entry of one image: its file, what it was made of, and its condition."""

    file: str = ""
    source: str = ""
    label: str | None = None
    logit: float = 0.0


class Manifest(Record):
    """`samples.json` and `pictures.json`: what an output folder depends on. Older versions lack some keys."""

    command: str = ""
    model: str = ""
    model_sha256: str = ""
    preset: str = ""
    weights: str = ""
    trained_images: Natural = 0
    truncation: str = ""
    seed: Natural = 0
    steps: Natural = 0
    spacing: float = 1
    sampler: str = ""
    options: dict[str, float] = Field(default_factory=dict)
    guidance_scale: float = 1
    prior_guidance_scale: float = 1
    precision: str | None = None
    nfe: Natural = 0
    nfe_text: str = ""
    start: str = ""
    format: Literal["png", "npz"] = "png"
    labels: list[str] | None = None
    prompts: list[str] | None = None
    conditions: Conditions = Conditions()
    pictures: list[Picture] = Field(default_factory=list)
    rows: list[dict[str, float]] = Field(default_factory=list)
    config: StoredConfig = StoredConfig()


def read_manifest(path: Path, advice: str) -> Json:
    """Return a manifest, also of tdpm 0.1.0, with the present keys; {} if the file does not exist.

    Raises InputError, naming the key and ending in `advice`, for a damaged file.
    """
    return read_record(path, Manifest, advice, upgrade_record) if path.is_file() else {}


def require_keys(manifest: Json, keys: Sequence[str], path: Path, advice: str) -> None:
    """Raise InputError for a manifest that lacks one of these keys."""
    if missing := [key for key in keys if key not in manifest]:
        raise InputError(f"{path}: damaged, {missing[0]} is missing; {advice}")


def precision_of(out: Path, layout: Layout, overwrite: bool) -> str | None:
    """Return the number format that a folder was begun with, if any: "auto" may choose another one later."""
    return None if overwrite else OutputFolder(out, layout).read_settings().get("precision")
