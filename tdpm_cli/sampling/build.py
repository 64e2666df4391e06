"""From a Config to what it describes; and from a file of weights back to a model."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.nn.modules.module import register_module_parameter_registration_hook

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints.runs import newest_run
from tdpm_cli.config import schema
from tdpm_cli.config.schema import Config
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.denoiser import Denoiser
from tdpm_cli.engine.protocols import Condition
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256

FORMAT = 1  # of the header of a file of weights


@dataclass(frozen=True)
class Components:
    """A config's space, condition and networks. `discriminator` is None where there is no game."""

    config: Config
    space: Any
    condition: Condition
    model: TDPM
    discriminator: nn.Module | None

    @property
    def schedule_text(self) -> str:
        """The cut in every unit."""
        return self.model.denoiser.schedule.describe()


def build(config: Config, device: torch.device | str = "cpu") -> Components:
    """Build everything with weights drawn from `train.seed`, the same on every device but "meta"."""
    schedule, space, condition = config.schedule(), config.space(), config.condition()
    on_meta = torch.device(device).type == "meta"
    with torch.random.fork_rng(devices=[]), torch.device("meta" if on_meta else "cpu"):
        torch.manual_seed(config.train.seed)
        network = config.backbone(space.shape, condition.sizes)
        try:
            denoiser = Denoiser(network, schedule, **vars(config.denoiser), text_encoder=condition.text_encoder())
        except ValueError as error:
            raise InputError(f"denoiser.prediction is {config.denoiser.prediction!r}: {error}") from None
        model = TDPM(denoiser, config.prior(space.shape, condition.sizes, schedule, network))
        discriminator: nn.Module | None = None
        if config.discriminator is not None:
            discriminator = config.discriminator(space.shape, condition.sizes)
    for module in (model, discriminator):
        if module is not None and not on_meta:
            module.to(device).to(memory_format=torch.channels_last)
    return Components(config, space, condition, model, discriminator)


def use_checkpointing(model: nn.Module, on: bool) -> None:
    """Switch gradient checkpointing of the networks that offer it."""
    for network in model.modules():
        if isinstance(getattr(network, "checkpointing", None), bool):
            setattr(network, "checkpointing", on)  # noqa: B010 (mypy knows modules as attributes only)


def read_data(config: Config) -> tuple[Dataset, Config]:
    """Open the data; return them and the config with what only the data knew (the names of the classes)."""
    data = config.data(config.path, config.space().raw_shape)
    found = config.condition().fit(data)
    condition = replace(config.condition, options={**config.condition.options, **found})
    return data, replace(config, condition=condition)


@dataclass(frozen=True)
class Loaded:
    """A trained model and all that sampling needs to know of it."""

    components: Components
    source: Path
    sha256: str
    weights: str  # which weights: "ema-500000", "model"
    seen: int


def header(config: Config, weights: str, seen: int) -> dict[str, str]:
    """What a file of weights says of itself, so that loading needs nothing else."""
    plain = json.dumps(config.to_dict())
    return {"format": f"tdpm {FORMAT}", "config": plain, "weights": weights, "seen": str(seen)}


def load(source: Path | None = None, device: torch.device | str = "cpu") -> Loaded:
    """Load a run's newest EMA weights, or a file that `tdpm export` wrote; of the newest run under runs/ if left out.

    Of several processes all load what the first one finds, for a run may go on meanwhile. Raises InputError for
    anything else.
    """
    path = distributed.from_first(lambda: _weights_of(source or newest_run()))
    shapes, says = weights.read_header(path)
    if says.get("format") != f"tdpm {FORMAT}":
        found = says.get("format", "no tdpm header")
        raise InputError(f"{path}: {found}; accepted: a file that tdpm wrote, of format tdpm {FORMAT}")
    config = config_in(path, says)
    playing = replace(config, discriminator=None)  # which is in no such file
    with _at_most(len(shapes), path):
        own = weights.state(build(playing, "meta").model)
    weights.fits(own, shapes, str(path))  # before any memory is taken
    needed, free = sum(tensor.nbytes for tensor in own.values()), free_memory(torch.device(device))
    if needed > free:
        raise InputError(
            f"{path}: its weights need {needed / 2**30:.3g} GiB of memory, and {free / 2**30:.3g} are free"
        )
    components = replace(build(playing, device), config=config)
    weights.load_state(components.model, weights.read_weights(path)[0], str(path))
    components.model.eval().requires_grad_(False)
    digest = sha256(path)
    distributed.agree("weights", {str(path): digest})
    return Loaded(components, path, digest, says["weights"], int(says["seen"]))


def _weights_of(source: Path) -> Path:
    return checkpoint.newest_weights(source) if source.is_dir() else source


def config_in(path: Path, says: Mapping[str, str]) -> Config:
    """The config in a header. Raises InputError, naming the file, for what is none."""
    try:
        int(says["seen"]), says["weights"]
        return schema.from_dict(dict(json.loads(says["config"])))
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: its header is damaged ({type(error).__name__}: {error})") from None
    except InputError as error:
        raise InputError(f"{path}: its header holds a config that is not accepted: {error}") from None


@contextmanager
def _at_most(tensors: int, path: Path) -> Iterator[None]:
    """Raise InputError where networks are built of far more weights than the file has."""
    left = 4 * tensors + 100  # a network may make some anew while it is built

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise InputError(f"{path}: weights of another model: its config asks for more than its {tensors}")

    watch = register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        watch.remove()
