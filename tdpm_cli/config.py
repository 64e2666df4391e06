"""Plain values, as presets hold them → one validated, frozen Config.

A section either names a part (`name:` picks the file, the other keys are its keyword-only arguments) or fills
one of the dataclasses below. Either way the signature is the schema: names, types and ranges are checked here,
before anything is built. A key is replaced whole: `--set schedule.truncate.sigma=0.3` leaves no other cut.
"""

import copy
import hashlib
import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import yaml
from annotated_types import Ge, Gt, Interval, Len, MinLen
from pydantic import BeforeValidator, ConfigDict, TypeAdapter, ValidationError

from tdpm_cli import parts
from tdpm_cli.engine import samplers, schedule
from tdpm_cli.engine.denoiser import Prediction, Weight
from tdpm_cli.engine.game import GameLoss
from tdpm_cli.engine.ranges import Fraction, Natural, NonNegative, Positive, PositiveFloat
from tdpm_cli.errors import InputError, nearest
from tdpm_cli.words import SECTIONS, parse_count

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
class GameConfig:
    """How prior and discriminator play; `weight` is of a prior that shares its weights, `start` of others; `mismatch`
    weighs real examples with the condition of another, which the discriminator is to call fake."""

    loss: GameLoss = "logistic"
    r1: NonNegative = 0.1
    r2: NonNegative = 0.0
    penalty_every: Positive = 16
    weight: NonNegative = 0.1
    mismatch: NonNegative = 0.0
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
    game_betas: Betas = field(default_factory=lambda: [0.0, 0.99])
    warmup: Count = 0
    cooldown: Fraction = 0.0
    clip: PositiveFloat | None = None
    ema: Annotated[list[Count], MinLen(1)] = field(default_factory=lambda: [500_000])
    ema_ramp: PositiveFloat | None = 0.05
    snapshot: Annotated[int, Ge(1), BeforeValidator(parse_count)] = 200_000
    log: Annotated[int, Ge(1), BeforeValidator(parse_count)] = 4_000
    keep: Annotated[int, Ge(2)] = 2
    score: bool = False
    most_skipped: Positive = 10
    on_save_error: Literal["stop", "continue"] = "stop"
    tensorboard: bool = False


@dataclass(frozen=True, kw_only=True)
class SampleConfig:
    """How examples are drawn where the command line says nothing else."""

    steps: Positive = 4
    spacing: Annotated[float, Ge(1)] = 1.0
    sampler: str = "ddim"
    options: dict[str, float] = field(default_factory=dict)  # of the sampler, such as ddim's eta
    scale: PositiveFloat = 1.0  # of guidance of the steps; 1 = off
    prior_scale: PositiveFloat = 1.0  # of guidance of the prior
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
        return parts.load(self.kind, self.name)(*context, **self.options)


@dataclass(frozen=True)
class ScheduleConfig:
    """The base chain and where it is truncated."""

    name: str
    options: dict[str, Any]
    truncate: dict[str, float] | None

    def __call__(self) -> schedule.Schedule:
        """Build the truncated chain. Raises InputError for a cut that is not on it."""
        try:
            chain = schedule.CHAINS[self.name](**self.options)
            return chain if self.truncate is None else chain.truncate(**self.truncate)  # type: ignore[arg-type]
        except ValueError as error:
            cut = f"schedule.truncate is {self.truncate}" if self.truncate else "schedule"
            raise InputError(f"{cut}: {error}") from None


PARTS = ("data", "space", "condition", "backbone", "prior", "discriminator")
SETTINGS = {
    "denoiser": DenoiserConfig,
    "game": GameConfig,
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
    game: GameConfig
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
    """Check plain values against every signature. Raises InputError for the first that does not fit."""
    _known(plain, ["preset", *SECTIONS], "")
    missing = [name for name in ("data", "space", "backbone", "train") if not plain.get(name)]
    if missing:
        raise InputError(f"the preset has no section {missing[0]!r}; it needs data, space, backbone and train")
    for section in SECTIONS:
        if not isinstance(plain.get(section), Mapping | None):
            raise InputError(f"{section} is {plain[section]!r}: it must be a section with keys of its own")

    plain = {key: value for key, value in plain.items() if value is not None}
    given = {
        "condition": {"name": "none"},
        "schedule": {"name": "linear"},
        "prior": {"name": "shared"},
        **plain,
    }
    data = dict(given["data"])
    path = data.pop("path", None)
    if path is not None and not isinstance(path, str):
        raise InputError(f"data.path is {path!r}: it must be the path of a file or folder")
    built: dict[str, Any] = {name: _part(name, given[name]) for name in PARTS if name not in ("data", "discriminator")}
    prior = parts.load("prior", built["prior"].name)
    if prior.learns and not given.get("discriminator"):
        raise InputError(f"prior.name is {built['prior'].name!r}, so the preset needs a section 'discriminator'")
    settings: dict[str, Any] = {
        name: kind(**check(kind, given.get(name) or {}, name)) for name, kind in SETTINGS.items()
    }
    config = Config(
        preset=str(given.get("preset", "")),
        data=_part("data", data),
        path=Path(path) if path else None,
        schedule=_schedule(given["schedule"]),
        discriminator=_part("discriminator", given["discriminator"]) if prior.learns else None,
        **built,
        **settings,
    )
    _agree(config, prior)
    return config


def space_of(plain: Mapping[str, Any]) -> Any:
    """The space of a preset's plain values. Raises InputError for one that does not fit."""
    if not isinstance(plain.get("space"), Mapping):
        raise InputError("the preset has no section 'space' with keys of its own")
    return _part("space", plain["space"])()


def _agree(config: Config, prior: Any) -> None:
    """Raise InputError for values that are right alone and wrong together."""
    game, train, space = config.game, config.train, config.space()
    if prior.shares and game.start:
        raise InputError(
            f"game.start is set, but the prior {config.prior.name!r} learns with the denoiser; use prior.name=copy"
        )
    if train.phases == "prior" and (prior.shares or not prior.learns):
        raise InputError(f"train.phases is 'prior', but the prior {config.prior.name!r} has no weights of its own; "
                         "use prior.name=denoised, copy or x0-then-noise")  # fmt: skip
    if prior.learns and game.start >= train.duration:
        raise InputError(
            f"game.start is {game.start}, but train.duration is {train.duration}: the prior would not learn"
        )
    if game.mismatch and not config.condition().sizes:
        raise InputError(f"game.mismatch is {game.mismatch:g}, but the model is unconditional: nothing to mismatch")
    if len(set(train.ema)) < len(train.ema):
        raise InputError(f"train.ema is {train.ema}: each half-life once")
    if train.batch_gpu and train.batch % train.batch_gpu:
        raise InputError(f"train.batch_gpu is {train.batch_gpu}: it must divide train.batch, {train.batch}")
    if train.flip and len(space.raw_shape) != 3:
        raise InputError("train.flip is true, but the data are no images")
    parts.load("features", config.eval.features, "eval.features")
    check_sampler(config.sample, config.schedule().T, bool(config.condition().sizes), prior, "sample.")


def check_sampler(sample: SampleConfig, T: int, conditional: bool, prior: Any, prefix: str = "--") -> None:
    """Raise InputError for an unknown sampler or option, steps beyond 1..T, or guidance of what knows no condition."""
    known = samplers.names()
    if sample.sampler not in known:
        raise InputError(
            f"{prefix}sampler is {sample.sampler!r}{nearest(sample.sampler, known)} Accepted: {', '.join(known)}."
        )
    check(known[sample.sampler], sample.options, f"sampler {sample.sampler}")
    if not 1 <= sample.steps <= T:
        raise InputError(f"{prefix}steps is {sample.steps}, but the truncated chain has {T}; accepted: 1 to {T}")
    if sample.scale != 1 and not conditional:
        raise InputError(
            f"{prefix}scale is {sample.scale:g}, but the model is unconditional: there is nothing to guide"
        )
    if sample.prior_scale != 1 and not (conditional and prior.learns):
        name = "prior_scale" if prefix == "sample." else "prior-scale"
        lacks = "the model is unconditional" if prior.learns else "the prior learns nothing"
        raise InputError(f"{prefix}{name} is {sample.prior_scale:g}, but {lacks}: there is nothing to guide; leave it "
                         "at 1")  # fmt: skip


def check(
    target: Callable[..., Any], given: Mapping[str, Any], path: str, beside: Sequence[str] = ()
) -> dict[str, Any]:
    """Check values against the keyword-only parameters of `target`, the preset's keys; return them converted.

    `beside` are keys of the same section that were taken out before, such as `name`.
    """
    accepted = keys_of(target)
    _known(given, [*beside, *accepted], path + ".")
    for name, parameter in accepted.items():
        if name not in given and parameter.default is parameter.empty:
            raise InputError(f"{path}.{name} is missing; the preset must set it")
    hints = get_type_hints(target.__init__ if inspect.isclass(target) else target, include_extras=True)
    checked = {}
    for name, value in given.items():
        try:
            checked[name] = TypeAdapter(
                hints[name], config=ConfigDict(strict=True, allow_inf_nan=False)
            ).validate_python(value)
        except ValidationError as error:
            first = error.errors()[0]
            inside = first["loc"] if isinstance(value, list | Mapping) else ()
            where = "".join(f"[{key}]" if isinstance(key, int) else f".{key}" for key in inside)
            wish = first["msg"].replace("Input should be", "it must be")
            raise InputError(f"{path}.{name}{where} is {first['input']!r}: {wish}") from None
    return checked


def keys_of(target: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    """The keyword-only arguments of what a section configures: its keys."""
    parameters = inspect.signature(target).parameters
    keys = {name: parameter for name, parameter in parameters.items() if parameter.kind is parameter.KEYWORD_ONLY}
    keys.pop("noise", None)  # a sampler's, which the program hands it
    return keys


def _complete(target: Callable[..., Any], given: Mapping[str, Any], path: str, beside: Sequence[str]) -> dict[str, Any]:
    """Like `check`, with every default filled in."""
    checked = check(target, given, path, beside)
    return {name: checked.get(name, copy.copy(key.default)) for name, key in keys_of(target).items()}


def _known(given: Mapping[str, Any], accepted: Sequence[str], prefix: str) -> None:
    for key in given:
        if key not in accepted:
            raise InputError(
                f"{prefix}{key}: no such key{nearest(str(key), accepted)} "
                f"Accepted{' in ' + prefix[:-1] if prefix else ''}: {', '.join(accepted) or 'none'}."
            )


def _part(kind: str, given: Mapping[str, Any]) -> Part:
    options = dict(given)
    name = options.pop("name", None)
    if not isinstance(name, str):
        raise InputError(f"{kind}.name is {name!r}; accepted: {', '.join(parts.names(kind))}")
    beside = ["name", "path"] if kind == "data" else ["name"]
    return Part(kind, name, _complete(parts.load(kind, name), options, kind, beside))


def _schedule(given: Mapping[str, Any]) -> ScheduleConfig:
    options = dict(given)
    name, truncate = options.pop("name", "linear"), options.pop("truncate", None)
    if not isinstance(name, str) or name not in schedule.CHAINS:
        raise InputError(
            f"schedule.name is {name!r}{nearest(str(name), schedule.CHAINS)} Accepted: {', '.join(schedule.CHAINS)}."
        )
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
    options = _complete(schedule.CHAINS[name], options, "schedule", ["name", "truncate"])
    return ScheduleConfig(name, options, truncate)
