"""`--init`: begin a run from a trained denoiser, of tdpm or of another project."""

from pathlib import Path

from torch import Tensor

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import registry
from tdpm_cli.config.external import NOTHING, Confirmation, guard
from tdpm_cli.config.presets import overlay, section_of
from tdpm_cli.config.schema import Config, validate_schedule
from tdpm_cli.convert.external import ImportedModel, Importer
from tdpm_cli.convert.source import InitSource, accepted_prefixes, init_source
from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.build import Components, build_schedule, config_in, schedule_of

DENOISER = "denoiser."  # the prefix of the denoiser's tensors in a file of tdpm


def preset_of_denoiser(plain: Json, init: str, confirmation: Confirmation = NOTHING) -> Json:
    """Return a preset with the backbone, schedule, prediction and condition of the model that `init` names.

    The truncation point, the prior, the adversarial settings and the data stay those of the preset. Raises InputError
    for files that cannot be read and for a model of images of another shape.
    """
    source = init_source(init)
    if source.importer is None:
        return _preset_of_run(plain, init, confirmation)
    shape = (plain.get("space") or {}).get("shape")
    if not isinstance(shape, list) or len(shape) != 3:
        raise InputError(f"--init {init}: space.shape is {shape!r}, but the model makes images: set it to [C, H, W]")
    model = _import(source, shape[1])
    if model.channels != shape[0] or (model.size or shape[1]) != shape[1]:
        size = model.size or "?"
        raise InputError(f"--init {init}: the model makes images of [{model.channels}, {size}, {size}], "
                         f"but space.shape is {shape}; set space.shape to the model's")  # fmt: skip
    plain = {**plain, "backbone": model.backbone}
    if model.schedule is not None:
        plain = _with_schedule(plain, model.schedule)
    plain = overlay(plain, "denoiser", {"prediction": model.prediction})
    if model.classes is not None:
        plain = overlay(plain, "condition", {"name": "labels", "classes": model.classes})
    return plain


def load_denoiser(components: Components, init: str) -> list[str]:
    """Load the weights that `init` names into the denoiser; return notes for the user.

    Raises InputError, naming tensors, for weights that do not fit.
    """
    source = init_source(init)
    denoiser = components.model.denoiser
    if source.importer is None:
        tensors = weights_of_run(init)[0]
        own = {name.removeprefix(DENOISER): value for name, value in tensors.items() if name.startswith(DENOISER)}
        weights.load_tensors(denoiser, own, f"--init {init}")
        return []
    if not isinstance(denoiser.network, UNet):
        name = components.config.backbone.name
        raise InputError(f"--init {init}: backbone.name is {name!r}, but the weights are those of a U-Net: use 'unet'")
    model = _import(source, components.space.shape[1])
    weights.load_tensors(denoiser.network, model.tensors_for(denoiser.network), f"--init {init}")
    return model.notes


def _import(source: InitSource, height: int) -> ImportedModel:
    assert source.importer is not None
    importer: Importer = registry.load("importer", source.importer)
    return importer(source.path, height)


def weights_of_run(init: str) -> tuple[dict[str, Tensor], Config]:
    """Return the newest averaged weights of a run, or those of a file of tdpm, with their config."""
    path = Path(init)
    tensors, header = weights.read_weights(checkpoint.newest_weights(path) if path.is_dir() else path)
    if "config" not in header:
        raise InputError(f"--init {init}: tdpm did not write this file; for other projects use {accepted_prefixes()}")
    return tensors, config_in(path, header)


def _preset_of_run(plain: Json, init: str, confirmation: Confirmation) -> Json:
    config = guard(weights_of_run(init)[1], f"--init {init}", confirmation)
    if config.condition.rejection is not None:  # the preset takes the condition over, and a preset is the user's
        raise InputError(config.condition.rejection)
    trained = config.to_dict()
    if any(section_of(trained, "space").get(key) != value for key, value in (plain.get("space") or {}).items()):
        raise InputError(f"--init {init}: the model's space is {trained['space']}, but the preset's is "
                         f"{plain.get('space')}; set space to the model's")  # fmt: skip
    schedule = {key: value for key, value in section_of(trained, "schedule").items() if key != "truncate"}
    plain = {**plain, **{key: trained[key] for key in ("backbone", "denoiser", "condition")}}
    plain = _with_schedule(plain, schedule)
    T = schedule_of(validate_schedule(section_of(plain, "schedule"))).T
    trained_T = build_schedule(config).T
    if trained_T < T:
        raise InputError(f"--init {init}: the denoiser was trained on t = 1..{trained_T}, but the truncation point "
                         f"is T = {T}; set schedule.truncate.step={trained_T} or below")  # fmt: skip
    return plain


def _with_schedule(plain: Json, schedule: Json) -> Json:
    """Return a preset with another schedule and its own truncation point."""
    return {**plain, "schedule": {**schedule, "truncate": (plain.get("schedule") or {}).get("truncate")}}
