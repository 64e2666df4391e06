"""A trained model as an autoencoder: images to x_t and back, edits, interpolations, and the discriminator's logits.

The functions are methods of `Model`, which binds them.
"""

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdpm_cli.checkpoints import weights
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.engine.interpolation import between_x_T, slerp
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.arguments import examples_of, integer_of, noise_of, tensor_of
from tdpm_cli.sampling.sample_batch import BatchInput, in_batches, rows_of, sample_in_batches
from tdpm_cli.sampling.settings import null_condition, reverse_settings

if TYPE_CHECKING:
    from tdpm_cli.sampling.model import Labels, Model


def noised(model: "Model", images: Tensor, *, t: int | None = None, seed: int = 0, first: int = 0) -> Tensor:
    """Return x_t ~ q(x_t | x_0) [n, *shape] at step t (T if None); image k gets the noise of (seed, first + k)."""
    t, x_0 = _step(model, t), _x_0(model, images)
    noise = _noise(seed, first, len(x_0)).normal(model.space.shape)
    return model.schedule.alpha(t) * x_0 + model.schedule.sigma(t) * noise


def encode(
    model: "Model",
    images: Tensor,
    *,
    t: int | None = None,
    iterations: int = 1,
    labels: "Labels" = None,
    **settings: object,
) -> Tensor:
    """Return x_t [n, *shape] at step t (T if None) by DDIM's inversion, in `steps` steps, at most t.

    `decode` with the same t and steps, `sampler="ddim"` and `clip=False` returns the images. More `iterations` of each
    step invert it more exactly.
    """
    x_0 = _x_0(model, images)
    cond = model.cond(len(x_0), labels)
    return _invert(model, x_0, cond, model.settings(**settings), _step(model, t), iterations)


def decode(  # noqa: PLR0913 (options of the Python API)
    model: "Model",
    x_t: Tensor,
    *,
    t: int | None = None,
    seed: int = 0,
    first: int = 0,
    labels: "Labels" = None,
    clip: bool = True,
    **settings: object,
) -> Tensor:
    """Return images from x_t [n, *shape] at step t (T if None), in `steps` steps, at most t.

    A sampler that draws noise uses that of (seed, first + k) for image k. `clip` keeps every estimate of x_0 within the
    data's bounds.
    """
    t, chosen = _step(model, t), model.settings(**settings)
    x_t = noise_of("x_t", x_t, model.space.shape)
    seed, first = integer_of("seed", seed, 0), integer_of("first", first, 0)
    indices = range(first, first + len(x_t))
    examples = BatchInput(seed, indices, cond=model.cond(len(x_t), labels), x_t=x_t, t=t, clip=clip)
    return sample_in_batches(model.components, chosen, examples)


def edit(
    model: "Model",
    images: Tensor,
    strength: float,
    *,
    seed: int = 0,
    first: int = 0,
    labels: "Labels" = None,
    **settings: object,
) -> Tensor:
    """Return images noised to t = strength · T and denoised again (SDEdit, Meng et al. 2022).

    `strength` is above 0 and at most 1. Structures coarser than the noise survive.
    """
    if not 0 < strength <= 1:
        raise InputError(f"strength is {strength}: it must be above 0 and at most 1, which is T")
    t = time_of(strength, model.schedule)
    x_t = noised(model, images, t=t, seed=seed, first=first)
    return decode(model, x_t, t=t, seed=seed + 1, first=first, labels=labels, clip=True, **settings)


def time_of(strength: float, schedule: Schedule) -> int:
    """Return the step t = strength · T of an edit, at least 1."""
    return max(round(strength * schedule.T), 1)


def interpolate(
    model: "Model",
    a: Tensor,
    b: Tensor,
    frames: int,
    *,
    labels: "Labels" = None,
    iterations: int = 1,
    **settings: object,
) -> Tensor:
    """Return `frames` images from image a to image b [C, H, W], between their x_T (`between_x_T`)."""
    chosen = model.settings(**{**settings, "sampler": "ddim"})
    x_0 = torch.cat([_x_0(model, tensor_of(name, end)[None], name) for name, end in (("a", a), ("b", b))])
    x_T = _invert(model, x_0, model.cond(2, labels), chosen, model.schedule.T, iterations)
    path = [between_x_T((x_T[0], x_T[1]), (x_0[0], x_0[1]), share, model.schedule) for share in _shares(frames)]
    examples = BatchInput(0, range(frames), cond=model.cond(frames, labels), x_t=torch.stack(path), clip=False)
    return sample_in_batches(model.components, chosen, examples)


def interpolate_z(
    model: "Model", seeds: tuple[int, int], frames: int, *, labels: "Labels" = None, **settings: object
) -> Tensor:
    """Return `frames` images from sample 0 of one seed to sample 0 of another, between their z (`slerp`).

    Every frame has the condition `labels`, or without it the condition drawn for the first seed.
    """
    seeds = (integer_of("seeds[0]", seeds[0], 0), integer_of("seeds[1]", seeds[1], 0))
    ends = [Noise(seed, [0]).normal(model.tdpm.prior.z_shape)[0] for seed in seeds]
    z = torch.stack([slerp(ends[0], ends[1], share) for share in _shares(frames)])
    chosen = model.settings(**settings)
    drawn = model.condition.draw(1, Noise(seeds[0], [0])) if labels is None else None
    one = model.condition.encode(drawn) if drawn is not None else model.cond(1, labels)
    cond = {key: value.expand(frames, *value.shape[1:]) for key, value in one.items()}

    # Index 0 for every frame: samplers that draw noise draw the same, so that frames differ by z alone.
    return sample_in_batches(model.components, chosen, BatchInput(seeds[0], [0] * frames, cond=cond, z=z))


def logits(model: "Model", images: Tensor, *, seed: int = 0, first: int = 0, labels: "Labels" = None) -> Tensor:
    """Return the discriminator's logit [n] of images noised to T; above 0 means "data".

    Raises InputError if the model has no discriminator beside it, as in exported files.
    """
    path = model.loaded.source.with_name("discriminator.safetensors")
    discriminator = build.build_discriminator(model.components, model.device)
    if discriminator is None or not path.is_file():
        raise InputError(f"{model.loaded.source}: no discriminator beside it; name a run or a checkpoint")
    weights.load_tensors(discriminator, weights.read_weights(path)[0], str(path))
    discriminator.eval().requires_grad_(False)
    x_T = noised(model, images, seed=seed, first=first)
    cond = model.cond(len(x_T), labels)

    @torch.inference_mode()
    def judge(part: range) -> Tensor:
        rows = slice(part.start, part.stop)
        own = {key: value.to(model.device) for key, value in rows_of(cond, rows).items()}
        result: Tensor = discriminator(x_T[rows].to(model.device), **model.tdpm.denoiser.encode_condition(own))
        return result

    return in_batches(len(x_T), model.settings().batch, judge)


def _invert(model: "Model", x_0: Tensor, cond: Cond, settings: SampleConfig, t: int, iterations: int) -> Tensor:
    """Return x_t of x_0 [n, *shape] by DDIM's inversion. Raises InputError for fewer than 1 iteration."""
    iterations = integer_of("iterations", iterations, 1)

    @torch.inference_mode()
    def invert(part: range) -> Tensor:
        rows = slice(part.start, part.stop)
        return model.tdpm.invert(
            x_0[rows].to(model.device),
            {key: value.to(model.device) for key, value in rows_of(cond, rows).items()},
            reverse_settings(settings, None, t),
            iterations=iterations,
            null=null_condition(model.components, len(part)),
        )

    return in_batches(len(x_0), settings.batch, invert)


def _x_0(model: "Model", images: object, name: str = "images") -> Tensor:
    x_0: Tensor = model.space.encode(examples_of(name, images, model.space.raw_shape))
    return x_0


def _noise(seed: int, first: int, n: int) -> Noise:
    """Return the noise of images `first` .. `first` + n - 1."""
    seed, first = integer_of("seed", seed, 0), integer_of("first", first, 0)
    return Noise(seed, range(first, first + n))


def _step(model: "Model", t: int | None) -> int:
    T = model.schedule.T
    if t is not None and not 1 <= t <= T:
        raise InputError(f"t is {t}, but the schedule is truncated at T = {T}; accepted: 1 to {T}")
    return T if t is None else t


def _shares(frames: int) -> list[float]:
    if integer_of("frames", frames, 1) < 2:
        raise InputError(f"frames is {frames}: it must be at least 2, both ends")
    return [k / (frames - 1) for k in range(frames)]
