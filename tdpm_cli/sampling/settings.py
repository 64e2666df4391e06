"""Sampling settings of a model: those of its preset, replaced by options; their cost; the manifest of samples."""

from typing import Literal, TypedDict

import torch
from torch import Tensor

from tdpm_cli import __version__
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig, check_sampler, check_sampling, split_sampler_options
from tdpm_cli.config.validation import validated
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.tdpm import TDPM, ReverseSettings
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.build import Components, LoadedModel

TIMED_BATCH = 4  # examples in a batch that times a number format


def settings_of(components: Components, **options: object) -> SampleConfig:
    """Return the preset's settings, replaced by the options that are not None.

    Raises InputError for options that do not fit the model.
    """
    preset = components.config.sample
    present, own = split_sampler_options(options)
    checked = validated(SampleConfig, present, "--")
    over = {key: getattr(checked, key) for key in present}
    # Another sampler does not take the options of the preset's.
    of_sampler = over.pop("options", {} if "sampler" in over else preset.options)
    settings = preset.model_copy(update=over)
    settings = settings.model_copy(update={"options": check_sampler(settings.sampler, {**of_sampler, **own})})
    check_sampling(
        settings, components.model.denoiser.schedule.T, bool(components.condition.sizes), components.model.prior.learns
    )
    key = "--precision" if "precision" in over else "sample.precision"
    devices.check(key, settings.precision, device_of(components.model))
    return settings.model_copy(update={"precision": _fastest(components)}) if settings.precision == "auto" else settings


def _fastest(components: Components) -> Literal["fp32", "bf16"]:
    """Return the number format in which the denoiser is fastest on this machine. The first call times each format."""
    if components.fastest.name is not None:
        return components.fastest.name
    denoiser, device = components.model.denoiser, device_of(components.model)
    x, t, null = timed_batch(components, TIMED_BATCH, device)
    with torch.inference_mode():
        cond = denoiser.encode_condition(null)
        work = lambda: denoiser.network(x, t, **cond)
        name = distributed.from_first(lambda: devices.fastest(work, device))
    components.fastest.name = name
    return name


def timed_batch(components: Components, n: int, device: torch.device) -> tuple[Tensor, Tensor, Cond]:
    """Return x_t of zeros [n, *shape], t = 1 [n] and the condition "nothing", to run a network on."""
    x_t = torch.zeros((n, *components.space.shape), device=device)
    null = {key: value.to(device) for key, value in components.condition.null(n).items()}
    return x_t, torch.ones(n, dtype=torch.long, device=device), null


def reverse_settings(
    settings: SampleConfig, bounds: tuple[float, float] | None, t: int | None = None
) -> ReverseSettings:
    """Return the settings of `TDPM.decode` from step t (T if None), with at most t steps."""
    return ReverseSettings(
        steps=settings.steps if t is None else min(settings.steps, t),
        spacing=settings.spacing,
        sampler=settings.sampler,
        options=settings.options,
        guidance_scale=settings.guidance_scale,
        precision=settings.precision,
        bounds=bounds,
        t=t,
    )


class PriorOptions(TypedDict):
    """Options of `TDPM.x_T_of`."""

    guidance_scale: float
    precision: str


def prior_options(settings: SampleConfig) -> PriorOptions:
    """Return the options of `TDPM.x_T_of` in these settings."""
    return {"guidance_scale": settings.prior_guidance_scale, "precision": settings.precision}


def null_condition(components: Components, n: int) -> Cond:
    """Return the condition "nothing", n times, on the model's device."""
    device = device_of(components.model)
    return {key: value.to(device) for key, value in components.condition.null(n).items()}


def device_of(model: TDPM) -> torch.device:
    """Return the device of a model's weights."""
    return next(model.parameters()).device


def nfe(model: TDPM, settings: SampleConfig, start: Start = "prior") -> int:
    """Return the network calls that one example costs. Only the start "prior" calls the prior."""
    steps = model.nfe(settings.steps, settings.guidance_scale) - model.nfe(0)
    return _nfe_of_prior(model, settings, start) + steps


def nfe_text(model: TDPM, settings: SampleConfig, start: Start = "prior") -> str:
    """Return the network calls of prior and steps: "1 + 4", or "2 + 2·4" if both are guided."""
    steps = f"{settings.steps}" if settings.guidance_scale == 1 else f"2·{settings.steps}"
    return f"{_nfe_of_prior(model, settings, start)} + {steps}"


def _nfe_of_prior(model: TDPM, settings: SampleConfig, start: Start) -> int:
    return model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale) if start == "prior" else 0


def describe(loaded: LoadedModel, settings: SampleConfig, seed: int, start: Start = "prior") -> Json:
    """Return everything that samples depend on, for their manifest."""
    config, model = loaded.components.config, loaded.components.model
    identity = {key: value for key, value in settings.model_dump().items() if key != "batch"}
    return {
        "tdpm": __version__,
        "model": str(loaded.source),
        "model_sha256": loaded.sha256,
        "preset": config.preset,
        "weights": loaded.weights,
        "trained_images": loaded.seen,
        "truncation": loaded.components.schedule_text,
        "seed": seed,
        **identity,
        "nfe": nfe(model, settings, start),
        "nfe_text": nfe_text(model, settings, start),
        "config": config.to_dict(),
    }
