"""Sampling settings of a model: the preset's with options over them, their cost, and the manifest of samples."""

from typing import Any
from weakref import WeakKeyDictionary

import torch

from tdpm_cli import __version__
from tdpm_cli.config.schema import SampleConfig, check_sampler, check_sampling, split_sampler_options
from tdpm_cli.config.validation import validated
from tdpm_cli.engine.tdpm import TDPM, ReverseSettings
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components, LoadedModel

TIMED_BATCH = 4  # examples on which number formats are timed


def settings_of(components: Components, **options: Any) -> SampleConfig:
    """Return the preset's settings, replaced by the options that are not None.

    Raises InputError for options that do not fit the model.
    """
    preset = components.config.sample
    present, own = split_sampler_options(options)
    over = {key: getattr(validated(SampleConfig, present, "--"), key) for key in present}
    # The preset's options belong to the preset's sampler.
    of_sampler = over.pop("options", {} if "sampler" in over else preset.options)
    settings = preset.model_copy(update=over)
    settings = settings.model_copy(update={"options": check_sampler(settings.sampler, {**of_sampler, **own})})
    check_sampling(
        settings, components.model.denoiser.schedule.T, bool(components.condition.sizes), components.model.prior.learns
    )
    key = "--precision" if "precision" in over else "sample.precision"
    precision.check(key, settings.precision, next(components.model.parameters()).device)
    return settings.model_copy(update={"precision": _fastest(components)}) if settings.precision == "auto" else settings


_FASTEST: WeakKeyDictionary[TDPM, Any] = WeakKeyDictionary()


def _fastest(components: Components) -> Any:
    """Return the number format in which the network is fastest on this machine; time each once."""
    if components.model in _FASTEST:
        return _FASTEST[components.model]
    device = next(components.model.parameters()).device
    cond = {key: value.to(device) for key, value in components.condition.null(TIMED_BATCH).items()}
    x, t = (
        torch.zeros((TIMED_BATCH, *components.space.shape), device=device),
        torch.ones(TIMED_BATCH, dtype=torch.long, device=device),
    )
    with torch.inference_mode():
        cond = components.model.denoiser.encode_condition(cond)
        work = lambda: components.model.denoiser.network(x, t, **cond)
        _FASTEST[components.model] = distributed.from_first(lambda: precision.fastest(work, device))
    return _FASTEST[components.model]


def reverse_settings(
    settings: SampleConfig, bounds: tuple[float, float] | None, t: int | None = None
) -> ReverseSettings:
    """Return the settings of `TDPM.decode`; at most t steps where it starts from t."""
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


def prior_options(settings: SampleConfig) -> dict[str, Any]:
    """Return the settings of `TDPM.draw_x_T`."""
    return {"guidance_scale": settings.prior_guidance_scale, "precision": settings.precision}


def nfe(model: TDPM, settings: SampleConfig) -> int:
    """Return the network calls that one example costs."""
    return model.nfe(settings.steps, settings.guidance_scale, settings.prior_guidance_scale)


def nfe_text(model: TDPM, settings: SampleConfig) -> str:
    """Return the network calls of prior and steps: "1 + 4", or "2 + 2·4" if both are guided."""
    steps = f"{settings.steps}" if settings.guidance_scale == 1 else f"2·{settings.steps}"
    return f"{model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale)} + {steps}"


def describe(loaded: LoadedModel, settings: SampleConfig, seed: int) -> dict[str, Any]:
    """Return the manifest of samples: everything that they depend on."""
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
        "nfe": nfe(model, settings),
        "nfe_text": nfe_text(model, settings),
        "config": config.to_dict(),
    }
