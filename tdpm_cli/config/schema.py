"""Plain values, as presets hold them → one validated, frozen Config.

A section either names a part (`name:` picks the file, the other keys are its keyword-only arguments) or fills
one of the dataclasses below. Either way the signature is the schema: names, types and ranges are checked here,
before anything is built. A key is replaced whole: `--set schedule.truncate.sigma=0.3` leaves no other cut.
"""

import copy
import hashlib
import json
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import yaml
from annotated_types import Ge, Gt, Interval, Len, MinLen
from pydantic import BeforeValidator

from tdpm_cli.config import registry, signatures
from tdpm_cli.config.constants import SECTIONS, parse_count
from tdpm_cli.config.settings import AdversarialSettings, Prediction, Weight
from tdpm_cli.config.types import Fraction, Natural, Positive, PositiveFloat
from tdpm_cli.config.validation import check, complete, known, spelled
from tdpm_cli.runtime.errors import InputError

if TYPE_CHECKING:
    from tdpm_cli.engine.schedule import Schedule

Count = Annotated[int, Ge(0), BeforeValidator(parse_count)]
Betas = Annotated[list[Annotated[float, Interval(ge=0, lt=1)]], Len(2, 2)]
Seed = Annotated[int, Interval(ge=0, lt=2**63)]
Precision = Literal["auto", "fp32", "bf16"]  # auto: what is fastest on the machine, by trying


@dataclass(frozen=True, kw_only=True)
class DenoiserConfig:
    """What the network predicts and how its errors are weighed."""

    prediction: Prediction = "eps"
    weight: Weight = "simple"
    gamma: PositiveFloat = 5.0


@dataclass(frozen=True, kw_only=True)
class AdversarialConfig(AdversarialSettings):
    """The game's settings, with `start` in images, such as 200k."""

    start: Count = 0


@dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """How long, how fast and on what terms the weights are trained. Durations count training images.

    `init` names a trained denoiser to begin from, `init_prior` a trained generator of clean images; phases "prior"
    leave the denoiser as it is, and train prior and discriminator.
    `prior_lr` is of a prior with weights of its own; one that shares the denoiser's learns at `denoiser_lr`.
    `batch_gpu` splits a batch into micro-batches, and `gradient_checkpointing` computes activations twice, where memory
    is short; `shard` shares the weights of denoiser and prior, their moments and averages among processes. `cache`
    keeps decoded images in memory where they fit in a quarter of what is free.
    Learning rates rise linearly over the first `warmup` images, and fall linearly to zero over the last share
    `cooldown` of the duration. An update with numbers that are not finite is skipped; after `most_skipped` such steps
    in a row the run stops. Where the disk refuses a checkpoint, the run stops, or goes on until the next is due. With
    `score` every checkpoint that is due is scored as section `eval` says, and the best is kept apart.
    """

    duration: Annotated[Count, Gt(0)]
    init: str | None = None
    init_prior: str | None = None
    phases: Literal["all", "prior"] = "all"
    batch: Annotated[int, Ge(2)] = 128
    batch_gpu: Annotated[int, Ge(2)] | None = None
    seed: Seed = 0
    precision: Precision = "auto"
    compile: bool = False
    gradient_checkpointing: bool = False
    shard: bool = False
    cache: bool = True
    workers: Natural = 0
    flip: bool = False
    denoiser_lr: PositiveFloat = 2e-4
    prior_lr: PositiveFloat = 2e-5
    discriminator_lr: PositiveFloat = 2e-3
    denoiser_betas: Betas = field(default_factory=lambda: [0.9, 0.999])
    adversarial_betas: Betas = field(default_factory=lambda: [0.0, 0.99])
    warmup: Count = 0
    cooldown: Fraction = 0.0
    clip: PositiveFloat | None = None
    ema: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [500_000])
    ema_ramp: PositiveFloat | None = 0.05
    snapshot: Annotated[int, Ge(1), BeforeValidator(parse_count)] = 200_000
    log: Annotated[int, Ge(1), BeforeValidator(parse_count)] = 4_000
    keep: Annotated[int, Ge(2)] = 2
    score: bool = False
    max_skipped_steps: Positive = 10
    on_save_error: Literal["stop", "continue"] = "stop"
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How examples are drawn where the command line says nothing else."""

    steps: Positive = 4
    spacing: Annotated[float, Ge(1)] = 1.0
    sampler: str = "ddim"
    options: dict[str, float] = field(default_factory=dict)  # of the sampler, such as ddim's eta
    guidance_scale: PositiveFloat = 1.0  # of guidance of the steps; 1 = off
    prior_guidance_scale: PositiveFloat = 1.0  # of guidance of the prior
    precision: Precision = "auto"  # of network calls
    batch: Positive = 256


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    """How examples are scored where the command line says nothing else."""

    features: str = "inception"
    n: Annotated[int, Ge(2), BeforeValidator(parse_count)] = 50_000
    batch: Positive = 64


@dataclass(frozen=True)
class Part:
    """A part and its keyword arguments; calling it builds it."""

    kind: str
    name: str
    options: dict[str, Any]

    def __call__(self, *context: Any) -> Any:
        """Build the part from what the program hands it."""
        return registry.load(self.kind, self.name)(*context, **self.options)


@dataclass(frozen=True)
class ScheduleConfig:
    """The base chain and where it is truncated."""

    name: str
    options: dict[str, Any]
    truncate: dict[str, float] | None

    def __call__(self) -> "Schedule":
        """Build the truncated chain. Raises InputError for a cut that is not on it."""
        try:
            chain = registry.load("schedule", self.name)(**self.options)
            return chain if self.truncate is None else chain.truncate(**self.truncate)
        except ValueError as error:
            cut = f"schedule.truncate is {self.truncate}" if self.truncate else "schedule"
            raise InputError(f"{cut}: {error}") from None


DEFAULTS = {"condition": {"name": "none"}, "schedule": {"name": "linear"}, "prior": {"name": "shared"}}
SETTINGS = {
    "denoiser": DenoiserConfig,
    "adversarial": AdversarialConfig,
    "train": TrainConfig,
    "sample": SampleConfig,
    "eval": EvalConfig,
}


@dataclass(frozen=True)
class Config:
    """Everything a run is made of. `discriminator` is None where there is no game."""

    preset: str
    data: Part
    path: Path | None  # of the data, where they are read from a disk
    space: Part
    condition: Part
    schedule: ScheduleConfig
    backbone: Part
    prior: Part
    discriminator: Part | None
    denoiser: DenoiserConfig
    adversarial: AdversarialConfig
    train: TrainConfig
    sample: SampleConfig
    eval: EvalConfig

    def to_dict(self) -> dict[str, Any]:
        """Plain values, every default filled in; `from_dict` reads them back."""
        plain: dict[str, Any] = {"preset": self.preset}
        for section in SECTIONS:
            value = getattr(self, section)
            if isinstance(value, Part):
                plain[section] = {"name": value.name, **value.options}
            elif isinstance(value, ScheduleConfig):
                plain[section] = {"name": value.name, **value.options, "truncate": value.truncate}
            else:
                plain[section] = asdict(value) if value else None
        plain["data"]["path"] = str(self.path) if self.path else None
        return copy.deepcopy(plain)

    def sha256(self) -> str:
        """Hash of the plain values."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def to_yaml(self) -> str:
        """The text of `config.yaml`."""
        return yaml.safe_dump(self.to_dict(), sort_keys=False, default_flow_style=None, width=100)


def from_dict(plain: Mapping[str, Any]) -> Config:
    """Check plain values against every signature, and against each other. Raises InputError for the first that does
    not fit: one that fits no signature before PyTorch is imported."""
    sections = check_words(plain)
    path = plain["data"].get("path")
    return _agreed(Config(preset=str(plain.get("preset") or ""), path=Path(path) if path else None, **sections))


def check_words(plain: Mapping[str, Any], apart: Collection[str] = ()) -> dict[str, Any]:
    """Check plain values against every signature, but for the sections `apart`; return what each section describes.

    Light: nothing is imported or built. Raises InputError for the first value that does not fit.
    """
    known(plain, ["preset", *SECTIONS])
    missing = [name for name in ("data", "space", "backbone", "train") if name not in apart and not plain.get(name)]
    if missing:
        raise InputError(f"the preset has no section {missing[0]!r}; it needs data, space, backbone and train")
    for section in SECTIONS:
        if not isinstance(plain.get(section), Mapping | None):
            raise InputError(f"{section} is {plain[section]!r}: it must be a section with keys of its own")
    given = {**DEFAULTS, **{key: value for key, value in plain.items() if value is not None}}
    return {section: _section(section, given.get(section)) for section in SECTIONS if section not in apart}


def space_of(plain: Mapping[str, Any]) -> Any:
    """The space of a preset's plain values. Raises InputError for one that does not fit."""
    if not isinstance(plain.get("space"), Mapping):
        raise InputError("the preset has no section 'space' with keys of its own")
    return _part("space", plain["space"])()


def schedule_of(plain: Mapping[str, Any]) -> "Schedule":
    """The truncated chain of a preset's plain values. Raises InputError for one that does not fit."""
    return _schedule(plain.get("schedule") or {})()


def _agreed(config: Config) -> Config:
    """Refuse values that are right alone and wrong together; leave out the discriminator where there is no game."""
    adversarial, train, space, prior = (
        config.adversarial,
        config.train,
        config.space(),
        registry.load("prior", config.prior.name),
    )
    if prior.learns and config.discriminator is None:
        raise InputError(f"prior.name is {config.prior.name!r}, so the preset needs a section 'discriminator'")
    if prior.shares and adversarial.start:
        raise InputError(
            f"adversarial.start is set, but the prior {config.prior.name!r} learns with the denoiser; "
            "use prior.name=copy"
        )
    if train.phases == "prior" and (prior.shares or not prior.learns):
        raise InputError(
            f"train.phases is 'prior', but the prior {config.prior.name!r} has no weights of its own; "
            "use prior.name=denoised, copy or x0-then-noise"
        )
    if prior.learns and adversarial.start >= train.duration:
        raise InputError(
            f"adversarial.start is {adversarial.start}, but train.duration is {train.duration}: "
            "the prior would not learn"
        )
    conditional = bool(config.condition().sizes)
    if adversarial.mismatch and not conditional:
        raise InputError(
            f"adversarial.mismatch is {adversarial.mismatch:g}, but the model is unconditional: nothing to mismatch"
        )
    if train.flip and len(space.raw_shape) != 3:
        raise InputError("train.flip is true, but the data are no images")
    check_sampling(config.sample, config.schedule().T, conditional, prior, "sample")
    return config if prior.learns else replace(config, discriminator=None)


def check_options(given: Mapping[str, Any]) -> None:
    """Check options of sampling, those that are not None, by words alone: what a model makes of them is seen when it is
    loaded. Raises InputError for the first that does not fit."""
    values = {key: value for key, value in given.items() if value is not None}
    of_sampler = {"eta": values.pop("eta")} if "eta" in values else {}
    check(signatures.fields_of(SampleConfig), values, "--")
    if "sampler" in values:
        check_sampler(values["sampler"], of_sampler)


def check_sampler(sampler: str, options: Mapping[str, Any], section: str = "--") -> dict[str, Any]:
    """The options of a sampler, converted. Raises InputError for an unknown sampler or option."""
    return check(registry.keys("sampler", sampler, spelled(section, "sampler")), options, f"sampler {sampler}")


def check_sampling(sample: SampleConfig, T: int, conditional: bool, prior: Any, section: str = "--") -> None:
    """Raise InputError for steps beyond 1..T, or guidance of what knows no condition."""
    if sample.steps > T:
        raise InputError(
            f"{spelled(section, 'steps')} is {sample.steps}, but the truncated chain has {T}; accepted: 1 to {T}"
        )
    for key, guides in (("guidance_scale", conditional), ("prior_guidance_scale", conditional and prior.learns)):
        value = getattr(sample, key)
        if value != 1 and not guides:
            lacks = "the prior learns nothing" if conditional else "the model is unconditional"
            raise InputError(
                f"{spelled(section, key)} is {value:g}, but {lacks}: there is nothing to guide; leave it at 1"
            )


def _section(section: str, given: Mapping[str, Any] | None) -> Any:
    """What the values of a section describe. Raises InputError for a value that does not fit."""
    if section == "schedule":
        return _schedule(given or {})
    if section not in SETTINGS:
        return None if section == "discriminator" and not given else _part(section, given or {})
    kind = SETTINGS[section]
    settings: Any = kind(**check(signatures.fields_of(kind), given or {}, section))
    if section == "train":
        if len(set(settings.ema)) < len(settings.ema):
            raise InputError(f"train.ema is {settings.ema}: each half-life once")
        if settings.batch_gpu and settings.batch % settings.batch_gpu:
            raise InputError(f"train.batch_gpu is {settings.batch_gpu}: it must divide train.batch, {settings.batch}")
        if settings.shard and (settings.score or settings.compile):
            other = "score" if settings.score else "compile"
            raise InputError(f"train.shard and train.{other} are both true, which do not go together; leave out one")
    elif section == "sample":
        check_sampler(settings.sampler, settings.options, section)
    elif section == "eval":
        registry.resolve("features", settings.features, "eval.features")
    return settings


def _part(section: str, given: Mapping[str, Any]) -> Part:
    options = dict(given)
    name = options.pop("name", None)
    kind = "dataset" if section == "data" else section
    registry.resolve(kind, name, f"{section}.name")
    beside = ["name"]
    if section == "data":
        beside, path = ["name", "path"], options.pop("path", None)
        if path is not None and not isinstance(path, str):
            raise InputError(f"data.path is {path!r}: it must be the path of a file or folder")
    return Part(kind, name, complete(registry.keys(kind, name), options, section, beside))


def _schedule(given: Mapping[str, Any]) -> ScheduleConfig:
    options = dict(given)
    name, truncate = options.pop("name", "linear"), options.pop("truncate", None)
    registry.resolve("schedule", name)
    if truncate is not None:
        units = ("step", "sigma", "log_snr")
        if not isinstance(truncate, Mapping) or len(truncate) != 1 or next(iter(truncate)) not in units:
            raise InputError(f"schedule.truncate is {truncate!r}: give one of step, sigma, log_snr, or null for none")
        unit, value = next(iter(truncate.items()))
        whole = isinstance(value, int) and not isinstance(value, bool)
        if not whole and (unit == "step" or not isinstance(value, float)):
            raise InputError(
                f"schedule.truncate.{unit} is {value!r}: it must be a {'whole ' if unit == 'step' else ''}number"
            )
        truncate = dict(truncate)
    options = complete(registry.keys("schedule", name), options, "schedule", ["name", "truncate"])
    return ScheduleConfig(name, options, truncate)
