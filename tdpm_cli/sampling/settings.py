"""A model as a source of examples: how it is sampled, what that is called, and the examples by number."""

from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from tdpm_cli import __version__
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig, check_sampler, check_sampling
from tdpm_cli.config.types import RawCondition
from tdpm_cli.config.validation import validated
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.tdpm import TDPM, ReverseSettings
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components, Loaded

EXAMPLES = 4  # of which the network is timed
GRID = 64  # examples in a picture; a quarter of it where they are larger than 64 pixels


def settings_of(made: Components, eta: float | None = None, **given: Any) -> SampleConfig:
    """The preset's settings with what was given (not None) over them. Raises InputError for what does not fit."""
    preset = made.config.sample
    given = {key: value for key, value in given.items() if value is not None}
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


class Generated:
    """Examples 0..n-1 of a model under one seed, drawn when they are asked for: a data set without a disk.

    The chain starts from the prior's x_T; or, to see what the prior costs, from that of `data`, noised, or from
    N(0, I). Example k is the one that `tdpm sample` writes under the same seed.
    """

    def __init__(
        self, made: Components, settings: SampleConfig, seed: int, n: int, device: torch.device,
        start: Start = "prior", data: Any = None,
    ) -> None:  # fmt: skip
        self.made, self.settings, self.seed, self.n, self.device = made, settings, seed, n, device
        self.start, self.data = start, data

    def __len__(self) -> int:
        return self.n

    @torch.inference_mode()
    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        made, settings = self.made, self.settings
        x_T, noise, cond, given = self._start_of(indices)
        null = self._null(len(indices))
        x_0 = made.model.decode(x_T, noise, cond, reverse_settings(settings, made.space.bounds), null)
        return made.space.decode(x_0).cpu(), given

    @torch.inference_mode()
    def x_T(self, indices: Sequence[int]) -> Tensor:
        """x_T [len(indices), *shape] of these examples."""
        return self._start_of(indices)[0]

    def _start_of(self, indices: Sequence[int]) -> tuple[Tensor, Noise, Cond, RawCondition]:
        """x_T of these examples, the rest of their noise, and their conditions, encoded and as they were given."""
        made, noise = self.made, Noise(self.seed, indices, self.device)
        if self.start == "data":
            raw, given = self.data[indices]
            told = made.condition.encode({**given, "raw": raw})
        else:
            given = made.condition.draw(len(indices), Noise(self.seed, indices))
            told = made.condition.encode(given)
        cond = {key: value.to(self.device) for key, value in told.items()}
        if self.start == "prior":
            null = self._null(len(indices))
            return made.model.draw_x_T(noise, cond, null=null, **prior_options(self.settings)), noise, cond, given
        fresh = noise.normal(made.space.shape)
        if self.start == "gaussian":
            return fresh, noise, cond, given
        x_0 = made.space.encode(raw.to(self.device))
        return made.model.denoiser.schedule.q_sample_T(x_0, fresh), noise, cond, given

    def _null(self, n: int) -> Cond:
        return {key: value.to(self.device) for key, value in self.made.condition.null(n).items()}


@torch.inference_mode()
def draw_panels(made: Components, model: TDPM, data: Any, device: torch.device) -> dict[str, Any]:
    """Pictures of the data, of x_T as the data and as the prior give it, and of the samples."""
    space, schedule = made.space, model.denoiser.schedule
    sample = made.config.sample.model_copy(update={"precision": made.config.train.precision})
    count = 4096 if len(space.shape) != 3 else GRID if max(space.shape) <= 64 else GRID // 4
    count = min(count, len(data))
    picked = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:count].tolist()
    training, _ = model.training, model.eval()
    panels: dict[str, list[Tensor]] = {"data": [], f"data at T = {schedule.T}": [], "prior": [], "samples": []}
    for start in range(0, count, sample.batch):
        chosen = range(start, min(start + sample.batch, count))
        noise = Noise(0, chosen, device)
        raw, conditions = data[picked[start : chosen.stop]]
        x_0 = space.encode(raw.to(device))
        real = schedule.q_sample_T(x_0, noise.normal(space.shape))
        cond = {key: value.to(device) for key, value in made.condition.encode({**conditions, "raw": raw}).items()}
        null = {key: value.to(device) for key, value in made.condition.null(len(raw)).items()}
        x_T = model.draw_x_T(noise, cond, null=null, **prior_options(sample))
        drawn = model.decode(x_T, noise, cond, reverse_settings(sample, space.bounds), null)
        for panel, x in zip(panels.values(), (x_0, real, x_T, drawn), strict=True):
            panel.append(x.cpu())
    model.train(training)
    return {title: space.to_image(space.decode(torch.cat(x))) for title, x in panels.items()}
