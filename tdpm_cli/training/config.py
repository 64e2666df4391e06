"""The config of a run: a preset, imported models, data and options, merged and validated. Imports no PyTorch.

What the user sets by hand takes precedence over a preset and over an imported model.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tdpm_cli.config import external
from tdpm_cli.config.external import Confirmation
from tdpm_cli.config.presets import Override, is_stored, merge, read_preset, with_data
from tdpm_cli.config.schema import Config, load_config, validate_sections
from tdpm_cli.config.types import PlainConfig
from tdpm_cli.runtime.errors import InputError


@dataclass(frozen=True)
class Sources:
    """Where data and trained models come from: paths, or a download of the preset's dataset."""

    data: Path | None = None
    download: bool = False
    init: str | None = None
    init_prior: str | None = None
    allow_external: bool = False  # open everything that an imported model or the config of a run names


def training_config(preset: str, overrides: Sequence[Override], sources: Sources) -> Config:
    """Merge and validate everything that defines a run. Raises InputError for what is not accepted.

    Errors of the preset and of options come before anything that imports PyTorch.
    """
    imported = {key: value for key, value in (("init", sources.init), ("init_prior", sources.init_prior)) if value}
    overrides = [*overrides, {"train": imported}]
    assignments = [over for over in overrides if isinstance(over, str)]
    named = [f"train.{key}={value}" for key, value in imported.items()]
    named += [f"{external.DATA_PATH}={sources.data}"] if sources.data else []
    confirmation = Confirmation(sources.allow_external, [*assignments, *named])
    plain = merge(_base(preset, sources.data), overrides)
    replaced = {"data"} if sources.data else set()
    replaced |= {"backbone", "schedule", "denoiser", "condition"} if sources.init else set()
    replaced |= {"prior"} if sources.init_prior else set()
    if replaced:
        validate_sections(plain, replaced)
    if sources.init is not None:
        plain = merge(_import_denoiser(plain, sources.init, confirmation), overrides)
    if sources.init_prior is not None:
        plain = merge(_import_generator(plain, sources.init_prior), overrides)
    config = load_config(with_data(plain, sources.data, sources.download, assignments))
    if preset == "auto" or not is_stored(preset):
        return config
    external.check_training(config, preset, confirmation)
    return external.guard(config, preset, confirmation)


def _base(preset: str, data: Path | None) -> PlainConfig:
    if preset != "auto":
        return read_preset(preset)
    if data is None:
        raise InputError("--preset auto needs data to look at: add --data PATH")
    from tdpm_cli.data.auto_preset import propose

    return propose(data)


def _import_denoiser(plain: PlainConfig, source: str, confirmation: Confirmation) -> PlainConfig:
    from tdpm_cli.convert.convert import preset_of_denoiser

    return preset_of_denoiser(plain, source, confirmation)


def _import_generator(plain: PlainConfig, source: str) -> PlainConfig:
    from tdpm_cli.convert.generator import preset_of_generator

    return preset_of_generator(plain, source)
