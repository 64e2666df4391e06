"""A trained model at hand: sample from it, and use it as the auto-encoder that it is."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.checkpoints import weights
from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.engine.interpolation import between_x_T, slerp
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import nfe, prior_options, reverse_settings, settings_of

Labels = Sequence[str | int] | None


class Model:
    """What `tdpm.load` returns. Images are uint8 [n, C, H, W] (points: float32 [n, dim]), x_t is float32 [n, *shape].

    Settings that are left out are the preset's: `steps`, `spacing`, `sampler`, `eta`, `guidance_scale`,
    `prior_guidance_scale`, `precision`, `batch`.
    `labels` are classes by number or name, or prompts where the model was trained on captions, taken in turn. Every
    method raises InputError for what does not fit the model.
    """

    def __init__(self, loaded: build.Loaded, device: torch.device) -> None:
        self.loaded, self.device = loaded, device
        self.space, self.condition = loaded.components.space, loaded.components.condition

    @property
    def config(self) -> Config:
        """Everything that the model was made of."""
        return self.loaded.components.config

    @property
    def tdpm(self) -> TDPM:
        """The networks."""
        return self.loaded.components.model

    @property
    def schedule(self) -> Schedule:
        """The noise levels t = 0..T."""
        return self.tdpm.denoiser.schedule

    def nfe(self, **settings: Any) -> int:
        """Network calls for one sample under these settings."""
        return nfe(self.tdpm, self.settings(**settings))

    def settings(self, **given: Any) -> SampleConfig:
        """The preset's settings with those given over them."""
        return settings_of(self.loaded.components, **given)

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: Any) -> Tensor:
        """Samples `first` .. `first` + n - 1 of `seed`: those that `tdpm sample` writes, whatever the batch."""
        chosen = self.settings(**settings)
        indices = range(first, first + n)
        cond = self._drawn(n, Noise(seed, indices)) if labels is None else self.cond(n, labels)

        def draw(part: slice, cond: Cond) -> Tensor:
            noise = Noise(seed, indices[part], self.device)
            x_T = self.tdpm.draw_x_T(noise, cond, null=self._null(len(indices[part])), **prior_options(chosen))
            return self._decode(x_T, noise, cond, chosen)

        return self._in_batches(n, chosen.batch, cond, draw)

    def draw_x_T(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: Any) -> Tensor:
        """x_T [n, *shape] as the prior draws them for those samples."""
        indices, chosen = range(first, first + n), self.settings(**settings)
        cond = self._drawn(n, Noise(seed, indices)) if labels is None else self.cond(n, labels)

        def draw(part: slice, cond: Cond) -> Tensor:
            noise = Noise(seed, indices[part], self.device)
            return self.tdpm.draw_x_T(noise, cond, null=self._null(len(indices[part])), **prior_options(chosen))

        return self._in_batches(n, chosen.batch, cond, draw)

    def noised(self, images: Tensor, *, t: int | None = None, seed: int = 0, first: int = 0) -> Tensor:
        """x_t ~ q(x_t | x_0) [n, *shape], the noise of image k being that of (seed, first + k); t is T if left out."""
        t, x_0 = self._step(t), self._x_0(images)
        noise = Noise(seed, range(first, first + len(images))).normal(self.space.shape)
        return self.schedule.alpha(t) * x_0 + self.schedule.sigma(t) * noise

    def encode(
        self, images: Tensor, *, t: int | None = None, iterations: int = 1, labels: Labels = None, **settings: Any
    ) -> Tensor:
        """x_t [n, *shape] (t is T if left out) by DDIM's inversion, in as many steps, at most t.

        `decode` with the same t and steps, `sampler="ddim"` and `clip=False` brings the images back.
        """
        t, chosen, x_0 = self._step(t), self.settings(**settings), self._x_0(images)
        if iterations < 1:
            raise InputError(f"iterations is {iterations}: it must be at least 1")

        def encoded(part: slice, cond: Cond) -> Tensor:
            x = x_0[part].to(self.device)
            settings = reverse_settings(chosen, None, t)
            return self.tdpm.invert(x, cond, settings, iterations=iterations, null=self._null(len(x)))

        return self._in_batches(len(x_0), chosen.batch, self.cond(len(x_0), labels), encoded)

    def decode(
        self, x_t: Tensor, *, t: int | None = None, seed: int = 0, first: int = 0,
        labels: Labels = None, clip: bool = True, **settings: Any,
    ) -> Tensor:  # fmt: skip
        """Images from x_t [n, *shape] at step t (T if left out), in as many steps, at most t, from there.

        `seed` is of samplers that draw noise; `clip` keeps every estimate of x_0 within the data's bounds.
        """
        t, chosen = self._step(t), self.settings(**settings)
        if tuple(x_t.shape[1:]) != tuple(self.space.shape):
            raise InputError(f"x_t has shape {list(x_t.shape)}; the model takes [n, {_listed(self.space.shape)}]")

        def decoded(part: slice, cond: Cond) -> Tensor:
            noise = Noise(seed, range(first, first + len(x_t))[part], self.device)
            return self._decode(x_t[part].to(self.device), noise, cond, chosen, t=t, clip=clip)

        return self._in_batches(len(x_t), chosen.batch, self.cond(len(x_t), labels), decoded)

    def edit(
        self, images: Tensor, strength: float, *, seed: int = 0, first: int = 0,
        labels: Labels = None, **settings: Any,
    ) -> Tensor:  # fmt: skip
        """Images noised to t = strength · T, and brought back: what is coarser than that noise stays (SDEdit, Meng
        et al. 2022). `strength` is above 0 and at most 1."""
        if not 0 < strength <= 1:
            raise InputError(f"strength is {strength}: it must be above 0 and at most 1, which is T")
        t = max(round(strength * self.schedule.T), 1)
        x_t = self.noised(images, t=t, seed=seed, first=first)
        return self.decode(x_t, t=t, seed=seed + 1, first=first, labels=labels, **settings)

    def interpolate(
        self, a: Tensor, b: Tensor, frames: int, *, labels: Labels = None, iterations: int = 1, **settings: Any
    ) -> Tensor:
        """`frames` images from image a to image b [C, H, W], by way of their x_T (`between_x_T`)."""
        ends = torch.stack([a, b])
        x_0, x_T = self._x_0(ends), self.encode(ends, labels=labels, iterations=iterations, **settings)
        way = [between_x_T((x_T[0], x_T[1]), (x_0[0], x_0[1]), share, self.schedule) for share in _shares(frames)]
        return self.decode(torch.stack(way), labels=labels, clip=False, **{**settings, "sampler": "ddim"})

    def interpolate_z(self, seeds: tuple[int, int], frames: int, *, labels: Labels = None, **settings: Any) -> Tensor:
        """`frames` images from sample 0 of one seed to sample 0 of another, by way of their z (`slerp`).

        A model that knows conditions gives the first seed's to all, unless `labels` says which.
        """
        ends = [Noise(seed, [0]).normal(self.tdpm.prior.z_shape)[0] for seed in seeds]
        z = torch.stack([slerp(ends[0], ends[1], share) for share in _shares(frames)])
        chosen = self.settings(**settings)
        one = self._drawn(1, Noise(seeds[0], [0])) if labels is None else self.cond(1, labels)
        cond = {key: value.expand(frames, *value.shape[1:]) for key, value in one.items()}

        def drawn(part: slice, cond: Cond) -> Tensor:
            given = z[part].to(self.device)
            x_T = self.tdpm.x_T_of(given, cond, null=self._null(len(given)), **prior_options(chosen))
            # Samplers that draw noise draw the same for every frame, which then differ by z alone.
            return self._decode(x_T, Noise(seeds[0], [0] * len(x_T), self.device), cond, chosen)

        return self._in_batches(frames, chosen.batch, cond, drawn)

    def logits(self, images: Tensor, *, seed: int = 0, first: int = 0, labels: Labels = None) -> Tensor:
        """The discriminator's logit [n] of images noised to T: above 0 where it takes them for data.

        It looks at a batch at a time, as in training. Raises InputError where it is not at hand: exported files leave
        it out.
        """
        path = self.loaded.source.with_name("discriminator.safetensors")
        made = build.build(self.config, self.device)
        if made.discriminator is None or not path.is_file():
            raise InputError(f"{self.loaded.source}: there is no discriminator beside it; give a run or a checkpoint")
        weights.load_tensors(made.discriminator, weights.read_weights(path)[0], str(path))
        judge = made.discriminator.eval().requires_grad_(False)
        x_T = self.noised(images, seed=seed, first=first)
        return self._in_batches(
            len(x_T), self.settings().batch, self.cond(len(x_T), labels),
            lambda part, cond: judge(x_T[part].to(self.device), **self.tdpm.denoiser.encode_condition(cond)),
        )  # fmt: skip

    def cond(self, n: int, labels: Labels) -> Cond:
        """Conditions that go round through `labels`, n in all; "nothing" without."""
        if labels is None:
            return self.condition.null(n)
        return self.condition.encode(self.condition.parse([str(word) for word in labels], n))

    def _drawn(self, n: int, noise: Noise) -> Cond:
        return self.condition.encode(self.condition.draw(n, noise))

    def _x_0(self, images: Tensor) -> Tensor:
        if tuple(images.shape[1:]) != tuple(self.space.raw_shape):
            raise InputError(
                f"images of shape {list(images.shape)}; the model takes [n, {_listed(self.space.raw_shape)}]"
            )
        x_0: Tensor = self.space.encode(images)
        return x_0

    def _step(self, t: int | None) -> int:
        if t is not None and not 1 <= t <= self.schedule.T:
            raise InputError(
                f"t is {t}, but the truncated chain has {self.schedule.T}; accepted: 1 to {self.schedule.T}"
            )
        return self.schedule.T if t is None else t

    def _null(self, n: int) -> Cond:
        return {key: value.to(self.device) for key, value in self.condition.null(n).items()}

    def _decode(
        self, x_t: Tensor, noise: Noise, cond: Cond, chosen: SampleConfig, t: int | None = None, clip: bool = True
    ) -> Tensor:
        settings = reverse_settings(chosen, self.space.bounds if clip else None, t)
        x_0 = self.tdpm.decode(x_t, noise, cond, settings, self._null(len(x_t)))
        images: Tensor = self.space.decode(x_0)
        return images

    @torch.inference_mode()
    def _in_batches(self, n: int, batch: int, cond: Cond, call: Callable[[slice, Cond], Tensor]) -> Tensor:
        """What `call` makes of 0..n-1, piece by piece, on the CPU."""
        return torch.cat([call(part, {key: value[part].to(self.device) for key, value in cond.items()}).cpu()
                          for part in _parts(n, batch)]).clone()  # fmt: skip


def load(source: str | Path | None = None, device: str | torch.device | None = None) -> Model:
    """The model of a run, a checkpoint or an exported file; of the newest run under runs/ if left out.

    Raises InputError for anything else. Loading executes nothing.
    """
    where = precision.device() if device is None else torch.device(device)
    return Model(build.load(None if source is None else Path(source), where), where)


def _parts(n: int, batch: int) -> Iterator[slice]:
    return (slice(start, min(start + batch, n)) for start in range(0, n, batch))


def _shares(frames: int) -> list[float]:
    if frames < 2:
        raise InputError(f"frames is {frames}: it must be at least 2, the ends")
    return [k / (frames - 1) for k in range(frames)]


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
