"""`tdpm export`: write a trained model for another runtime, and verify the file by running it there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from tdpm_cli.config import registry
from tdpm_cli.config.external import NOTHING, Confirmation
from tdpm_cli.export.target import export_target
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.destinations import check_file
from tdpm_cli.sampling import build
from tdpm_cli.sampling.build import LoadedModel

NO_LICENCE = "not stated"


@dataclass(frozen=True)
class ExportRequest:
    """What the user asks of an export: a licence to store, grey images as RGB, and sampling options.

    `external` confirms what the stored config names.
    """

    licence: str = NO_LICENCE
    rgb: bool = False
    options: Mapping[str, object] = field(default_factory=dict)
    overwrite: bool = False  # a file that tdpm did not write
    external: Confirmation = NOTHING


class ExportTarget(Protocol):
    """The interface of a file of export/targets. Its constant `SUFFIX` is that of its file; None for a folder."""

    def export(self, loaded: LoadedModel, file: Path, request: ExportRequest) -> str:
        """Write `file`, verify it, and return what the user should know. Raises InputError for an unsuitable model."""


def export(
    file: Path, model: Path | None = None, format: str | None = None, request: ExportRequest | None = None
) -> Path:
    """Write a run's averaged weights to `file`; return it.

    `format` is the name of a target, by default that of the suffix of `file`. Every target verifies its file and
    leaves none that differs from the model. Raises InputError for input that does not fit.
    """
    name = export_target(file, format)
    request = request or ExportRequest()
    loaded = build.load_model(model, confirmation=request.external)
    check_file("FILE", file, models=[model, loaded.source], overwrite=request.overwrite)
    target: ExportTarget = registry.load("export", name)()
    report = target.export(loaded, file, request)
    megabytes = sum(path.stat().st_size for path in [file, *file.rglob("*")] if path.is_file()) / 1e6
    trained = f"{loaded.weights} at {loaded.seen / 1000:g} kimg"
    print_line(f"done: {loaded.source} → {file}, {megabytes:.3g} MB, {trained}; {report}")
    return file
