"""`--init`: a run's config and weights taken from a trained denoiser, ours or another project's."""

from collections.abc import Callable
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config.constants import FOREIGN, split_init
from tdpm_cli.config.presets import overlay
from tdpm_cli.config.schema import Config, validate_section
from tdpm_cli.convert.external import Foreign, Tensors
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import Components, build_schedule, config_in, schedule_of

OWN = "denoiser."  # how a file of ours names the denoiser's network


def adopt(plain: dict[str, Any], init: str) -> dict[str, Any]:
    """Plain values of a preset, with backbone, chain, prediction and condition of the model that `init` names over
    them. The cut, the prior, the game and the data stay the preset's.

    Raises InputError for files that cannot be read, and for a model of images of another size.
    """
    shape = (plain.get("space") or {}).get("shape")
    kind, path = split_init(init)
    if kind is None:
        return _adopt_own(plain, init)
    if not isinstance(shape, list) or len(shape) != 3:
        raise InputError(f"--init {init}: the preset's space.shape is {shape!r}, but the model is of images [C, H, W]")
    found = _read(kind, path, shape[1])
    if found.channels != shape[0] or (found.size or shape[1]) != shape[1]:
        theirs = f"[{found.channels}, {found.size or '?'}, {found.size or '?'}]"
        raise InputError(
            f"--init {init}: it makes images of {theirs}, but space.shape is {shape}; set space.shape to it"
        )
    plain = {**plain, "backbone": found.backbone}
    if found.schedule is not None:
        plain = _with_chain(plain, found.schedule)
    plain = overlay(plain, "denoiser", {"prediction": found.prediction})
    if found.classes is not None:
        plain = overlay(plain, "condition", {"name": "labels", "classes": found.classes})
    return plain


def load_into(made: Components, init: str) -> list[str]:
    """Copy the weights that `init` names into the denoiser; return what a user should know of them.

    Raises InputError, naming tensors, where they do not fit.
    """
    kind, path = split_init(init)
    network = made.model.denoiser.network
    if kind is None:
        tensors, _ = _own(init)
        tensors = {name.removeprefix(OWN): tensor for name, tensor in tensors.items() if name.startswith(OWN)}
        weights.load_tensors(made.model.denoiser, tensors, f"--init {init}")
        return []
    if not isinstance(network, UNet):
        raise InputError(f"--init {init}: backbone.name is {made.config.backbone.name!r}; the weights are a U-Net's")
    found = _read(kind, path, made.space.shape[1])
    weights.load_tensors(network, found.carry(network), f"--init {init}")
    return found.notes


def _read(kind: str, path: Path, height: int) -> Foreign:
    name = kind.removesuffix("-new-order")
    reader: Callable[..., Foreign] = import_module(f"tdpm_cli.interchange.{name.replace('-', '_')}").read
    return partial(reader, new_order=True)(path, height) if name != kind else reader(path, height)


def _own(init: str) -> tuple[Tensors, Config]:
    path = Path(init)
    tensors, says = weights.read_weights(checkpoint.newest_weights(path) if path.is_dir() else path)
    if "config" not in says:
        raise InputError(f"--init {init}: no tdpm header; of other projects: {', '.join(f'{k}:PATH' for k in FOREIGN)}")
    return tensors, config_in(path, says)


def _adopt_own(plain: dict[str, Any], init: str) -> dict[str, Any]:
    config = _own(init)[1]
    given = config.to_dict()
    if any(given["space"].get(key) != value for key, value in (plain.get("space") or {}).items()):
        raise InputError(f"--init {init}: its space is {given['space']}, but the preset's is {plain.get('space')}")
    chain = {key: value for key, value in given["schedule"].items() if key != "truncate"}
    plain = _with_chain({**plain, **{key: given[key] for key in ("backbone", "denoiser", "condition")}}, chain)
    T, theirs = schedule_of(validate_section("schedule", plain.get("schedule") or {})).T, build_schedule(config).T
    if theirs < T:
        raise InputError(f"--init {init}: its denoiser knows t = 1..{theirs}, but the cut is at T = {T}; "
                         f"set schedule.truncate.step={theirs} or below")  # fmt: skip
    return plain


def _with_chain(plain: dict[str, Any], chain: dict[str, Any]) -> dict[str, Any]:
    return {**plain, "schedule": {**chain, "truncate": (plain.get("schedule") or {}).get("truncate")}}
