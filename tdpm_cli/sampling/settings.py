"""A model as a source of examples: how it is sampled, what that is called, and the examples by number."""

from typing import Any
from weakref import WeakKeyDictionary

import torch

from tdpm_cli import __version__
from tdpm_cli.config.schema import SampleConfig, check_sampler, check_sampling
from tdpm_cli.config.validation import validated
from tdpm_cli.engine.tdpm import TDPM, ReverseSettings
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components, Loaded

EXAMPLES = 4  # of which the network is timed


def settings_of(made: Components, **given: Any) -> SampleConfig:
    """The preset's settings with what was given (not None) over them. Raises InputError for what does not fit."""
    preset = made.config.sample
    given = {key: value for key, value in given.items() if value is not None}
    eta = given.pop("eta", None)
    over = {key: getattr(validated(SampleConfig, given, "--"), key) for key in given}
    options = over.pop("options", {} if "sampler" in over else preset.options)  # the preset's are of its own sampler
    if eta is not None:
        options = {**options, "eta": eta}
    settings = preset.model_copy(update=over)
    settings = settings.model_copy(update={"options": check_sampler(settings.sampler, options)})
    check_sampling(settings, made.model.denoiser.schedule.T, bool(made.condition.sizes), made.model.prior.learns)
    key = "--precision" if "precision" in over else "sample.precision"
    precision.check(key, settings.precision, next(made.model.parameters()).device)
    return settings.model_copy(update={"precision": _fastest(made)}) if settings.precision == "auto" else settings


_TRIED: WeakKeyDictionary[TDPM, Any] = WeakKeyDictionary()


def _fastest(made: Components) -> Any:
    """The number format in which the network is fastest here, by trying once."""
    if made.model in _TRIED:
        return _TRIED[made.model]
    where = next(made.model.parameters()).device
    cond = {key: value.to(where) for key, value in made.condition.null(EXAMPLES).items()}
    x, t = (
        torch.zeros((EXAMPLES, *made.space.shape), device=where),
        torch.ones(EXAMPLES, dtype=torch.long, device=where),
    )
    with torch.inference_mode():
        cond = made.model.denoiser.encode_condition(cond)
        work = lambda: made.model.denoiser.network(x, t, **cond)
        _TRIED[made.model] = distributed.from_first(lambda: precision.fastest(work, where))
    return _TRIED[made.model]


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
    """What `TDPM.draw_x_T` takes, of the sample settings."""
    return {"guidance_scale": settings.prior_guidance_scale, "precision": settings.precision}


def nfe(model: TDPM, settings: SampleConfig) -> int:
    """Network calls for one example."""
    return model.nfe(settings.steps, settings.guidance_scale, settings.prior_guidance_scale)


def nfe_text(model: TDPM, settings: SampleConfig) -> str:
    """The network calls as the field counts them: "1 + 4", or, where steps and prior are guided, "2 + 2·4"."""
    steps = f"{settings.steps}" if settings.guidance_scale == 1 else f"2·{settings.steps}"
    return f"{model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale)} + {steps}"


def describe(loaded: Loaded, settings: SampleConfig, seed: int) -> dict[str, Any]:
    """Everything that examples depend on, and where they came from."""
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
