"""A trained model at hand: sample from it, and use it as the auto-encoder that it is."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli import assemble
from tdpm_cli.config import Config, SampleConfig
from tdpm_cli.engine.model import TDPM
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.errors import InputError
from tdpm_cli.run import precision
from tdpm_cli.sampling import sampler_options, settings_of


class Model:
    """What `tdpm.load` returns. Images are uint8 [n, C, H, W] (points: float32 [n, dim]), x_t is float32 [n, *shape].

    Settings that are left out are the preset's: `steps`, `spacing`, `sampler`, `eta`, `scale`, `precision`, `batch`.
    `labels` are classes by number or name, or prompts where the model was trained on captions, taken in turn. Every
    method raises InputError for what does not fit the model.
    """

    def __init__(self, loaded: assemble.Loaded, device: torch.device) -> None:
        self.loaded, self.device = loaded, device
        self.space, self.condition = loaded.assembly.space, loaded.assembly.condition

    @property
    def config(self) -> Config:
        """Everything that the model was made of."""
        return self.loaded.assembly.config

    @property
    def tdpm(self) -> TDPM:
        """The networks."""
        return self.loaded.assembly.model

    @property
    def schedule(self) -> Schedule:
        """The noise levels t = 0..T."""
        return self.tdpm.denoiser.schedule

    def nfe(self, **settings: Any) -> int:
        """Network calls for one sample under these settings."""
        chosen = self.settings(**settings)
        return self.tdpm.nfe(chosen.steps, chosen.scale)

    def settings(self, **given: Any) -> SampleConfig:
        """The preset's settings with those given over them."""
        return settings_of(self.loaded.assembly, **given)

    def sample(
        self, n: int, *, seed: int = 0, first: int = 0, labels: Sequence[str | int] | None = None, **settings: Any
    ) -> Tensor:
        """Samples `first` .. `first` + n - 1 of `seed`: those that `tdpm sample` writes, whatever the batch."""
        chosen = self.settings(**settings)
        indices = range(first, first + n)
        cond = self._drawn(n, Noise(seed, indices)) if labels is None else self.cond(n, labels)

        def draw(part: slice, cond: Cond) -> Tensor:
            noise = Noise(seed, indices[part], self.device)
            return self._decode(self.tdpm.draw_x_T(noise, cond, chosen.precision), noise, cond, chosen)

        return self._in_batches(n, chosen.batch, cond, draw)

    def draw_x_T(self, n: int, *, seed: int = 0, first: int = 0, labels: Sequence[str | int] | None = None) -> Tensor:
        """x_T [n, *shape] as the prior draws them for those samples."""
        indices = range(first, first + n)
        cond = self._drawn(n, Noise(seed, indices)) if labels is None else self.cond(n, labels)

        def draw(part: slice, cond: Cond) -> Tensor:
            return self.tdpm.draw_x_T(Noise(seed, indices[part], self.device), cond, self.settings().precision)

        return self._in_batches(n, self.settings().batch, cond, draw)

    def noised(self, images: Tensor, *, t: int | None = None, seed: int = 0, first: int = 0) -> Tensor:
        """x_t ~ q(x_t | x_0) [n, *shape], the noise of image k being that of (seed, first + k); t is T if left out."""
        t, x_0 = self._step(t), self._x_0(images)
        noise = Noise(seed, range(first, first + len(images))).normal(self.space.shape)
        return self.schedule.alpha(t) * x_0 + self.schedule.sigma(t) * noise

    def encode(
        self, images: Tensor, *, iterations: int = 1, labels: Sequence[str | int] | None = None, **settings: Any
    ) -> Tensor:
        """x_T [n, *shape] by DDIM's inversion: `decode` with `sampler="ddim"`, `clip=False` brings the images back."""
        chosen, x_0 = self.settings(**settings), self._x_0(images)
        if iterations < 1:
            raise InputError(f"iterations is {iterations}: it must be at least 1")

        def encoded(part: slice, cond: Cond) -> Tensor:
            x = x_0[part].to(self.device)
            return self.tdpm.invert(x, cond, steps=chosen.steps, spacing=chosen.spacing, iterations=iterations,
                                    scale=chosen.scale, null=self._null(len(x)))  # fmt: skip

        return self._in_batches(len(x_0), chosen.batch, self.cond(len(x_0), labels), encoded)

    def decode(
        self, x_t: Tensor, *, t: int | None = None, seed: int = 0, first: int = 0,
        labels: Sequence[str | int] | None = None, clip: bool = True, **settings: Any,
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
        labels: Sequence[str | int] | None = None, **settings: Any,
    ) -> Tensor:  # fmt: skip
        """Images noised to t = strength · T, and brought back: what is coarser than that noise stays (SDEdit, Meng
        et al. 2022). `strength` is above 0 and at most 1."""
        if not 0 < strength <= 1:
            raise InputError(f"strength is {strength}: it must be above 0 and at most 1, which is T")
        t = max(round(strength * self.schedule.T), 1)
        x_t = self.noised(images, t=t, seed=seed, first=first)
        return self.decode(x_t, t=t, seed=seed + 1, first=first, labels=labels, **settings)

    def cond(self, n: int, labels: Sequence[str | int] | None) -> Cond:
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
        options = sampler_options(chosen)
        if t is not None:
            options["steps"] = min(chosen.steps, t)
        bounds = self.space.bounds if clip else None
        x_0 = self.tdpm.decode(x_t, noise, cond, t=t, null=self._null(len(x_t)), bounds=bounds, **options)
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
    return Model(assemble.load(assemble.newest_run() if source is None else Path(source), where), where)


def _parts(n: int, batch: int) -> Iterator[slice]:
    return (slice(start, min(start + batch, n)) for start in range(0, n, batch))


def _listed(shape: Sequence[int]) -> str:
    return ", ".join(map(str, shape))
