"""Build the networks of a config, and load trained weights into them: the only place that makes networks."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, cast

import torch
from torch import Tensor, nn

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints.runs import newest_run
from tdpm_cli.config import registry
from tdpm_cli.config.external import NOTHING, Confirmation
from tdpm_cli.config.schema import Component, Config, ScheduleConfig, check_sampling, load_stored_config
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.denoiser import Denoiser
from tdpm_cli.engine.protocols import Condition, Space
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256
from tdpm_cli.sampling.information import eigenvalues_of

if TYPE_CHECKING:
    from PIL import Image

FORMAT = 1  # of the header of a file of weights


class DrawableSpace(Space, Protocol):
    """A space whose raw examples can be drawn."""

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """Draw raw examples as one image."""


@dataclass
class FastestPrecision:
    """The number format in which networks are fastest on this machine; None until they have been timed."""

    name: Literal["fp32", "bf16"] | None = None


@dataclass(frozen=True)
class Components:
    """The space, condition and networks of a config. `discriminator` and `encoder` are None if nothing trains them."""

    config: Config
    space: DrawableSpace
    condition: Condition
    model: TDPM
    discriminator: nn.Module | None
    encoder: nn.Module | None = None
    fastest: FastestPrecision = field(default_factory=FastestPrecision, compare=False)

    @property
    def schedule_text(self) -> str:
        """The truncation point in every unit."""
        return self.model.denoiser.schedule.describe()


def build(config: Config, device: torch.device | str = "cpu") -> Components:
    """Build everything, with initial weights from `train.seed` that are the same on every device except "meta".

    Raises InputError for values that do not fit each other.
    """
    schedule, space, condition = build_schedule(config), build_space(config), build_condition(config)
    _check_together(config, schedule, space, condition)
    on_meta = torch.device(device).type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        torch.manual_seed(config.train.seed)
        network = build_component("backbone", config.backbone, space.shape, condition.sizes)
        try:
            denoiser = Denoiser(
                network, schedule, **config.denoiser.model_dump(), text_encoder=condition.text_encoder()
            )
        except ValueError as error:
            raise InputError(f"denoiser.prediction is {config.denoiser.prediction!r}: {error}") from None
        prior = build_component("prior", config.prior, space.shape, condition.sizes, schedule, network)
        model = TDPM(denoiser, prior)
        discriminator = _discriminator(config, space, condition)
        encoder: nn.Module | None = None
        if config.encoder is not None:
            encoder = build_component("encoder", config.encoder, space.shape, condition.sizes, prior.latent)
    for module in (model, discriminator, encoder):
        if module is not None and not on_meta:
            _place(module, device)
    return Components(config, space, condition, model, discriminator, encoder)


def build_discriminator(components: Components, device: torch.device) -> nn.Module | None:
    """Build the discriminator alone, with arbitrary weights; None if the config has none."""
    with torch.random.fork_rng(devices=[]):
        discriminator = _discriminator(components.config, components.space, components.condition)
    return None if discriminator is None else _place(discriminator, device)


def _discriminator(config: Config, space: Space, condition: Condition) -> nn.Module | None:
    if config.discriminator is None:
        return None
    network: nn.Module = build_component("discriminator", config.discriminator, space.shape, condition.sizes)
    return network


def _place(module: nn.Module, device: torch.device | str) -> nn.Module:
    """Move a network to the device, in the memory format in which convolutions are fast. Returns the network."""
    return module.to(device).to(memory_format=torch.channels_last)


def build_schedule(config: Config) -> Schedule:
    """Build the truncated schedule. Raises InputError for a truncation point outside the schedule."""
    return schedule_of(config.schedule)


def schedule_of(section: ScheduleConfig) -> Schedule:
    """Build the truncated schedule that a section describes. Raises InputError as `build_schedule` does."""
    try:
        untruncated: Schedule = build_component("schedule", section)
        if section.truncate is None:
            return untruncated
        if "nats" in section.truncate:
            raise ValueError("the step depends on the data, which must be opened first")
        return untruncated.truncate(**cast(dict[str, Any], section.truncate))
    except ValueError as error:
        key = f"schedule.truncate is {section.truncate}" if section.truncate else "schedule"
        raise InputError(f"{key}: {error}") from None


def build_space(config: Config) -> DrawableSpace:
    """Build the space. Raises InputError for options that do not fit each other."""
    space: DrawableSpace = build_component("space", config.space)
    return space


def build_condition(config: Config) -> Condition:
    """Build the condition. Raises InputError for options that do not fit each other."""
    condition: Condition = build_component("condition", config.condition)
    return condition


def build_component(kind: str, component: Component, *context: object) -> Any:
    """Build a component from what the program passes in and its options.

    Raises InputError for a component of a stored config that names what the user has not confirmed.
    """
    if component.rejection is not None:
        raise InputError(component.rejection)
    return registry.load(kind, component.name)(*context, **component.options)


def check_together(config: Config) -> None:
    """Raise InputError for settings that do not fit each other. Opens no data and builds no network."""
    if "nats" in (config.schedule.truncate or {}):  # until the data are opened, only the untruncated schedule is known
        config = config.replace("schedule", truncate=None)
    _check_together(config, build_schedule(config), build_space(config), build_condition(config))


def _check_together(config: Config, schedule: Schedule, space: Space, condition: Condition) -> None:
    conditional = bool(condition.sizes)
    if config.adversarial.mismatch and not conditional:
        raise InputError(f"adversarial.mismatch is {config.adversarial.mismatch:g}, but the model is unconditional: "
                         "leave it at 0")  # fmt: skip
    if config.train.flip and len(space.raw_shape) != 3:
        raise InputError("train.flip is true, but the data are not images: set it to false")
    prior_learns = bool(registry.attribute("prior", config.prior.name, "learns"))
    check_sampling(config.sample, schedule.T, conditional, prior_learns, "sample")


def use_checkpointing(model: nn.Module, on: bool) -> None:
    """Switch gradient checkpointing on or off in the networks that support it."""
    for network in model.modules():
        if isinstance(getattr(network, "checkpointing", None), bool):
            setattr(network, "checkpointing", on)  # noqa: B010 (mypy knows modules as attributes only)


def open_dataset(config: Config) -> tuple[Dataset, Config]:
    """Open the dataset; return it, and the config with what only the data contain.

    These are the names of the classes, and the step of a truncation point in nats. Raises InputError for nats that no
    step of the schedule has.
    """
    space = build_space(config)
    data: Dataset = build_component("dataset", config.data, config.data.path, space.raw_shape)
    options = {**config.condition.options, **build_condition(config).fit(data)}
    condition = config.condition.model_copy(update={"options": options})
    schedule = config.schedule.model_copy(update={"truncate": _resolve(config.schedule, data, space)})
    return data, config.model_copy(update={"condition": condition, "schedule": schedule})


def _resolve(section: ScheduleConfig, data: Dataset, space: Space) -> dict[str, int | float] | None:
    """Return the truncation point, in steps if it was in nats."""
    if not section.truncate or "nats" not in section.truncate:
        return section.truncate
    untruncated = schedule_of(section.model_copy(update={"truncate": None}))
    try:
        return {"step": untruncated.step_of_nats(section.truncate["nats"], eigenvalues_of(data, space))}
    except ValueError as error:
        raise InputError(f"schedule.truncate is {section.truncate}: {error}") from None


@dataclass(frozen=True)
class LoadedModel:
    """A trained model, the file that it comes from, and the number of images that it was trained on."""

    components: Components
    source: Path
    sha256: str
    weights: str  # which weights: "ema-500000", "model"
    seen: int


def header(config: Config, weights: str, seen: int) -> dict[str, str]:
    """Return the header of a file of weights, which contains everything that `load_model` needs."""
    plain = json.dumps(config.to_dict())
    return {"format": f"tdpm {FORMAT}", "config": plain, "weights": weights, "seen": str(seen)}


def load_model(
    source: Path | None = None, device: torch.device | str = "cpu", confirmation: Confirmation = NOTHING
) -> LoadedModel:
    """Load a run's newest averaged weights, or a file of `tdpm export`; by default those of the newest run in runs/.

    All processes load the file that the first one chooses, because a run may write another meanwhile. What the stored
    config names is opened only if it is confirmed or remembered (`config/external.py`). Raises InputError for anything
    that is not a model of tdpm, and for one that exceeds the free memory.
    """
    path, verified = distributed.from_first(lambda: _weights_of(source or newest_run()))
    shapes, header = weights.read_header(path)
    if header.get("format") != f"tdpm {FORMAT}":
        actual = header.get("format", "no tdpm header")
        raise InputError(f"{path}: {actual}; accepted: a file that tdpm wrote, of format tdpm {FORMAT}")
    config = config_in(path, header, confirmation)
    without = config.model_copy(update={"discriminator": None, "encoder": None})  # files of weights do not contain it
    with weights.limit_parameters(len(shapes), path):
        expected = weights.tensors_of(_built(path, without).model)
    weights.require_same(expected, shapes, str(path))  # before allocating memory
    weights.require_memory(sum(tensor.nbytes for tensor in expected.values()), path, torch.device(device))
    components = replace(build(without, device), config=config)
    weights.load_tensors(components.model, weights.read_weights(path)[0], str(path))
    components.model.eval().requires_grad_(False)
    digest = verified if verified and distributed.is_first() else sha256(path)  # each process hashes its own file
    distributed.agree("weights", {str(path): digest})
    return LoadedModel(components, path, digest, header["weights"], int(header["seen"]))


def _weights_of(source: Path) -> tuple[Path, str | None]:
    """Return a file of weights, and its SHA-256 if this process has verified the file."""
    return checkpoint.newest_weights_and_hash(source) if source.is_dir() else (source, None)


def config_in(path: Path, header: Mapping[str, str], confirmation: Confirmation = NOTHING) -> Config:
    """Return the config in a header. Raises InputError, naming the file, if it is missing or invalid."""
    try:
        int(header["seen"]), header["weights"]
        return load_stored_config(dict(json.loads(header["config"])), str(path), confirmation)
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from None
    except InputError as error:
        raise InputError(f"{path}: invalid config in its header: {error}") from None


def _built(path: Path, config: Config) -> Components:
    """Build on the device "meta". Raises InputError, naming the file, for a config whose networks cannot be built."""
    try:
        return build(config, "meta")
    except InputError as error:
        raise InputError(f"{path}: invalid config in its header: {error}") from None
