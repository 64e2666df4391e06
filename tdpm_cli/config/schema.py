"""Presets as data: plain values in, one validated and frozen Config out. Builds nothing and imports no PyTorch.

A section either names a component (`name` picks its file, the other keys are its keyword-only arguments) or holds
settings, which are the fields of a model in `settings.py`.
"""

import copy
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import cast

import yaml
from pydantic import BaseModel, ConfigDict, Field

from tdpm_cli.config import external, registry
from tdpm_cli.config.constants import SECTIONS
from tdpm_cli.config.external import Confirmation
from tdpm_cli.config.legacy import upgrade
from tdpm_cli.config.presets import Override, merge, section_of
from tdpm_cli.config.settings import (
    AdversarialSettings,
    DenoiserConfig,
    EvalConfig,
    SampleConfig,
    Section,
    StageConfig,
    TrainConfig,
)
from tdpm_cli.config.types import PlainConfig, Truncation, Value
from tdpm_cli.config.validation import check, check_known, complete, full_name, validated
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import json_sha256

OPTIONAL = ("discriminator", "encoder")
REQUIRED = ("data", "space", "backbone", "train")
DEFAULTS: Mapping[str, Value] = {
    "condition": {"name": "none"},
    "schedule": {"name": "linear"},
    "prior": {"name": "shared"},
}
SETTINGS: Mapping[str, type[Section]] = {
    "denoiser": DenoiserConfig,
    "adversarial": AdversarialSettings,
    "train": TrainConfig,
    "sample": SampleConfig,
    "eval": EvalConfig,
}
UNITS = tuple(Truncation.__annotations__)  # in which a preset may give the truncation point


class Component(BaseModel):
    """A component by its name, with its options. Builds nothing; see `sampling/build.py`.

    `rejection` is the error of building it: a stored config names what the user has not confirmed (`external.py`).
    """

    model_config = ConfigDict(frozen=True)

    name: str
    options: dict[str, object] = {}
    rejection: str | None = Field(default=None, exclude=True, repr=False)

    def to_dict(self) -> dict[str, object]:
        """Return the section's plain values."""
        return {"name": self.name, **self.options}


class DataConfig(Component):
    """A dataset, and where its files are."""

    path: Path | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the section's plain values."""
        return {**super().to_dict(), "path": str(self.path) if self.path else None}


class ScheduleConfig(Component):
    """An untruncated schedule, and its truncation point in one of `UNITS`."""

    truncate: dict[str, int | float] | None = None

    def to_dict(self) -> dict[str, object]:
        """Return the section's plain values."""
        return {**super().to_dict(), "truncate": self.truncate}


class Config(BaseModel):
    """Everything that defines a run. `discriminator` and `encoder` are None if no objective of training uses them."""

    model_config = ConfigDict(frozen=True)

    preset: str
    data: DataConfig
    space: Component
    condition: Component
    schedule: ScheduleConfig
    backbone: Component
    prior: Component
    discriminator: Component | None
    encoder: Component | None
    denoiser: DenoiserConfig
    adversarial: AdversarialSettings
    train: TrainConfig
    sample: SampleConfig
    eval: EvalConfig

    def replace(self, section: str, **values: object) -> "Config":
        """Return a copy with other values in one section of settings. They are not validated."""
        return self.model_copy(update={section: dict(self)[section].model_copy(update=values)})

    def to_dict(self) -> PlainConfig:
        """Return plain values with every default filled in; `load_config` reads them back."""
        sections = {name: value for name, value in self if name in SECTIONS}
        plain = {name: value.to_dict() if isinstance(value, Component) else value and value.model_dump()
                 for name, value in sections.items()}  # fmt: skip
        return copy.deepcopy(cast(PlainConfig, {"preset": self.preset, **plain}))

    def sha256(self) -> str:
        """Return the hash of the plain values."""
        return json_sha256(self.to_dict())

    def to_yaml(self) -> str:
        """Return the text of `config.yaml`."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)


def load_config(preset: str | Path | Mapping[str, Value], overrides: Sequence[Override] = ()) -> Config:
    """Read a preset, merge what it extends and the overrides, and validate the result.

    `preset` is a preset's name, the path of a YAML file, or plain values. An override is "section.key=value" or a
    mapping of sections; later ones take precedence. Raises InputError for the first value that is not accepted.
    """
    plain = merge(preset, overrides)
    sections = validate_sections(plain)
    config = Config.model_validate({"preset": str(plain.get("preset") or ""), **sections})
    check_adversarial(config)
    check_stages(config)
    unused = {"discriminator": not _needs_discriminator(config), "encoder": not _any_objective(config, "needs_encoder")}
    return config.model_copy(update={section: None for section, is_unused in unused.items() if is_unused})


def load_stored_config(
    plain: Value, where: str = "the stored config", confirmation: Confirmation = external.NOTHING
) -> Config:
    """Read a config that tdpm stored with a run, a model or samples, of this version or of 0.1.0.

    It may come from anyone: a component that names what `confirmation` does not cover cannot be built, and the error
    names `where`. Raises InputError for what is not a config, and for a confirmation of other keys.
    """
    confirmation.check()
    if not isinstance(plain, Mapping):
        raise InputError("the stored config is damaged: it must have sections such as data, space, backbone and train")
    return external.guard(load_config(upgrade(plain), confirmation.assignments), where, confirmation)


def validate_sections(plain: Mapping[str, Value], except_for: Collection[str] = ()) -> dict[str, object]:
    """Validate each section by itself, except those in `except_for`; return what each describes.

    Raises InputError for the first value that is not accepted.
    """
    check_known(plain, ["preset", *SECTIONS])
    for section in REQUIRED:
        if section not in except_for and not plain.get(section):
            raise InputError(f"the preset has no section {section!r}; it needs {', '.join(REQUIRED)}")
    for section in SECTIONS:
        section_of(plain, section)
    values = {**DEFAULTS, **{key: value for key, value in plain.items() if value is not None}}
    return {
        section: _section(section, section_of(values, section)) for section in SECTIONS if section not in except_for
    }


def validate_component(
    section: str, values: Mapping[str, Value], *, kind: str | None = None, own_keys: Sequence[str] = ()
) -> Component:
    """Validate the component that a section names, of the kind with the section's name or of `kind`.

    `own_keys` are keys of the section that do not belong to the component; they are checked elsewhere. Raises
    InputError for the first value that is not accepted.
    """
    kind = kind or section
    options = {key: value for key, value in values.items() if key not in own_keys}
    name = registry.resolve(kind, options.pop("name", None), f"{section}.name")
    return Component(name=name, options=complete(registry.keys(kind, name), options, section, ["name", *own_keys]))


def validate_schedule(values: Mapping[str, Value]) -> ScheduleConfig:
    """Validate section `schedule`. Raises InputError for the first value that is not accepted."""
    component = validate_component("schedule", {"name": "linear", **values}, own_keys=["truncate"])
    return ScheduleConfig(**dict(component), truncate=_truncation(values.get("truncate")))


def check_adversarial(config: Config) -> None:
    """Raise InputError if prior, discriminator and adversarial training do not fit together."""
    name, start = config.prior.name, config.adversarial.start
    learns = registry.attribute("prior", name, "learns")
    shares = registry.attribute("prior", name, "shares")
    if _needs_discriminator(config) and config.discriminator is None:
        raise InputError(f"prior.name is {name!r}, so the preset needs a section 'discriminator'")
    if shares and start:
        raise InputError(
            f"adversarial.start is {start}, but the prior {name!r} learns with the denoiser; use prior.name=copy"
        )
    if learns and start >= config.train.duration:
        raise InputError(
            f"adversarial.start is {start}, but train.duration is {config.train.duration}: the prior would not learn"
        )


def check_stages(config: Config) -> None:
    """Raise InputError if a stage of training lacks a network, or the prior does not fit its objective."""
    if config.train.stages and config.adversarial.start:
        raise InputError(f"adversarial.start is {config.adversarial.start}, but training has stages: leave it at 0")
    for number, stage in enumerate(config.train.stages_in_order):
        key = f"train.stages[{number}].objective" if config.train.stages else "train.objective"
        of_objective = lambda attribute, stage=stage: registry.attribute("objective", stage.objective, attribute)
        of_prior = lambda attribute: registry.attribute("prior", config.prior.name, attribute)
        if of_objective("needs_own_prior") and (of_prior("shares") or not of_prior("learns")):
            raise InputError(
                f"{key} is {stage.objective!r}, but the prior {config.prior.name!r} has no weights of its own; "
                "use prior.name=light, denoised, copy or x0-then-noise"
            )
        if of_objective("needs_encoder") and not of_prior("has_generator"):
            raise InputError(
                f"{key} is {stage.objective!r}, but the prior {config.prior.name!r} does not make x_0 of a vector z; "
                "use prior.name=light"
            )
        if of_objective("needs_encoder") and config.encoder is None:
            raise InputError(
                f"{key} is {stage.objective!r}, so the preset needs a section 'encoder', such as name: light"
            )


def _needs_discriminator(config: Config) -> bool:
    """Return whether training has an adversarial loss: an objective uses one, and the prior learns."""
    learns = registry.attribute("prior", config.prior.name, "learns")
    return bool(learns) and _any_objective(config, "needs_discriminator")


def _any_objective(config: Config, need: str) -> bool:
    """Return whether the objective of a stage has this need."""
    return any(registry.attribute("objective", stage.objective, need) for stage in config.train.stages_in_order)


def check_options(options: Mapping[str, object]) -> None:
    """Validate sampling options of the command line, except those that are None, without a model.

    Raises InputError for the first value that is not accepted.
    """
    settings, sampler_options = split_sampler_options(options)
    validated(SampleConfig, settings, "--")
    if "sampler" in settings:
        check_sampler(str(settings["sampler"]), sampler_options)


def split_sampler_options(values: Mapping[str, object]) -> tuple[dict[str, object], dict[str, object]]:
    """Split sampling options, except those that are None, into fields of SampleConfig and options of samplers."""
    present = {key: value for key, value in values.items() if value is not None}
    of_samplers = registry.all_keys("sampler").keys() - SampleConfig.model_fields.keys()
    options = {key: present.pop(key) for key in list(present) if key in of_samplers}
    return present, options


def check_sampler(sampler: str, options: Mapping[str, object], section: str = "--") -> dict[str, object]:
    """Validate and convert a sampler's options. Raises InputError for an unknown sampler or option."""
    return check(registry.keys("sampler", sampler, full_name(section, "sampler")), options, f"sampler {sampler}")


def check_sampling(sample: SampleConfig, T: int, conditional: bool, prior_learns: bool, section: str = "--") -> None:
    """Raise InputError for more steps than T, or for guidance of what has no condition."""
    if sample.steps > T:
        raise InputError(
            f"{full_name(section, 'steps')} is {sample.steps}, but the truncated schedule has {T}; accepted: 1 to {T}"
        )
    for key, value, guided in (
        ("guidance_scale", sample.guidance_scale, conditional),
        ("prior_guidance_scale", sample.prior_guidance_scale, conditional and prior_learns),
    ):
        if value != 1 and not guided:
            reason = "the prior has no weights" if conditional else "the model is unconditional"
            raise InputError(f"{full_name(section, key)} is {value:g}, but {reason}: leave it at 1")


def _section(section: str, values: Mapping[str, Value]) -> Component | Section | None:
    if section == "schedule":
        return validate_schedule(values)
    if section == "data":
        return _data(values)
    if section in SETTINGS:
        return _settings(section, values)
    return None if section in OPTIONAL and not values else validate_component(section, values)


def _settings(section: str, values: Mapping[str, Value]) -> Section:
    """Validate one section of settings. An alias of a component becomes the component's own name."""
    settings = validated(SETTINGS[section], _with_stages(values) if section == "train" else values, section)
    if isinstance(settings, TrainConfig):
        return _check_training(settings)
    if isinstance(settings, AdversarialSettings):
        return settings.model_copy(update={"loss": registry.resolve("loss", settings.loss, "adversarial.loss")})
    if isinstance(settings, SampleConfig):
        check_sampler(settings.sampler, settings.options, "sample")
        return settings.model_copy(update={"sampler": registry.resolve("sampler", settings.sampler, "sample.sampler")})
    if isinstance(settings, EvalConfig):
        features = registry.resolve("features", settings.features, "eval.features")
        return settings.model_copy(update={"features": features})
    return settings


def _with_stages(values: Mapping[str, Value]) -> dict[str, object]:
    """Return the values of section `train` with its stages validated, so that messages name their keys."""
    listed = values.get("stages")
    if not isinstance(listed, list):
        return dict(values)
    stages = []
    for number, stage in enumerate(listed):
        key = f"train.stages[{number}]"
        if not isinstance(stage, Mapping):
            raise InputError(f"{key} is {stage!r}: it must be a stage with keys of its own, such as objective")
        stages.append(validated(StageConfig, stage, key))
    return {**values, "stages": stages}


def _check_training(settings: TrainConfig) -> TrainConfig:
    """Raise InputError for values that exclude each other; return the settings with the objectives' own names."""
    total = sum(stage.duration for stage in settings.stages)
    if settings.stages and total != settings.duration:
        raise InputError(f"train.duration is {settings.duration}, but the stages add up to {total}: set it to that")
    if len(set(settings.ema)) < len(settings.ema):
        raise InputError(f"train.ema is {settings.ema}: name each half-life once")
    if settings.batch_gpu and settings.batch % settings.batch_gpu:
        raise InputError(f"train.batch_gpu is {settings.batch_gpu}: it must divide train.batch, {settings.batch}")
    if settings.shard and (settings.score or settings.compile):
        other = "score" if settings.score else "compile"
        raise InputError(f"train.shard and train.{other} exclude each other; set one to false")
    own_name = lambda objective, key: registry.resolve("objective", objective, key)
    stages = [
        stage.model_copy(update={"objective": own_name(stage.objective, f"train.stages[{number}].objective")})
        for number, stage in enumerate(settings.stages)
    ]
    objective = own_name(settings.objective, "train.objective")
    return settings.model_copy(update={"objective": objective, "stages": stages})


def _data(values: Mapping[str, Value]) -> DataConfig:
    component = validate_component("data", values, kind="dataset", own_keys=["path"])
    path = values.get("path")
    if path is not None and not isinstance(path, str):
        raise InputError(f"data.path is {path!r}: it must be the path of a file or folder")
    return DataConfig(**dict(component), path=Path(path) if path else None)


def _truncation(truncate: Value) -> dict[str, int | float] | None:
    """Return the truncation point. Raises InputError unless it is a number in one of `UNITS`, or None."""
    if truncate is None:
        return None
    if not isinstance(truncate, Mapping) or len(truncate) != 1 or next(iter(truncate)) not in UNITS:
        raise InputError(f"schedule.truncate is {truncate!r}: give one of {', '.join(UNITS)}, or null for none")
    unit, value = next(iter(truncate.items()))
    if isinstance(value, bool) or not isinstance(value, int | float) or (unit == "step" and isinstance(value, float)):
        kind = "an integer" if unit == "step" else "a number"
        raise InputError(f"schedule.truncate.{unit} is {value!r}: it must be {kind}")
    if unit == "nats" and not value > 0:
        raise InputError(f"schedule.truncate.nats is {value!r}: it must be above 0, such as 32")
    return {unit: value}
