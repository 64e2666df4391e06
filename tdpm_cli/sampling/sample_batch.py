"""`sample_batch`: the only place where noise becomes examples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import SampleConfig
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Examples, pieces_of, take
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.sampling.build import Components
from tdpm_cli.sampling.settings import device_of, null_condition, prior_options, reverse_settings


@dataclass(frozen=True)
class BatchInput:
    """What to sample one batch from. Example k depends on (seed, k), its condition and its starting point alone.

    `start` chooses x_T: "prior" calls the prior, "data" adds noise to the examples `indices` of `data`, "gaussian" is
    N(0, I). `z` [B, *z_shape] replaces the z that the prior would draw. `x_t` [B, *shape] at step `t` (T if None)
    replaces x_T; at most t steps lead from there to x_0. `noise` replaces the noise of (seed, k). The condition is
    `cond` if present, else `raw_condition`, else that of the data for the start "data", else drawn from the seed.
    `clip` keeps estimates of x_0 within the data's bounds.
    """

    seed: int
    indices: Sequence[int]
    start: Start = "prior"
    data: Examples | None = None
    raw_condition: RawCondition | None = None
    cond: Cond | None = None
    z: Tensor | None = None
    x_t: Tensor | None = None
    t: int | None = None
    clip: bool = True
    noise: Noise | None = None

    def part(self, part: range) -> "BatchInput":
        """Return the input of the examples at these positions. The noise must be that of the seed."""
        assert self.noise is None
        rows = slice(part.start, part.stop)
        return replace(
            self,
            indices=self.indices[rows],
            raw_condition=None if self.raw_condition is None else take(self.raw_condition, part),
            cond=None if self.cond is None else rows_of(self.cond, rows),
            z=None if self.z is None else self.z[rows],
            x_t=None if self.x_t is None else self.x_t[rows],
        )


@dataclass(frozen=True)
class StartingPoint:
    """x_T (or x_t) [B, *shape], the rest of the noise, and the conditions, encoded and raw."""

    x_T: Tensor
    noise: Noise
    cond: Cond
    raw_condition: RawCondition


@dataclass(frozen=True)
class SampledBatch:
    """x_T (or x_t) [B, *shape], the examples `raw` [B, *raw_shape] on the model's device, and their raw conditions."""

    x_T: Tensor
    raw: Tensor
    raw_condition: RawCondition


@torch.inference_mode()
def sample_batch(components: Components, settings: SampleConfig, batch: BatchInput) -> SampledBatch:
    """Sample one batch: choose x_T, run the sampler from there to x_0, and decode x_0 to raw examples."""
    point = starting_point(components, settings, batch)
    reverse = reverse_settings(settings, components.space.bounds if batch.clip else None, batch.t)
    null = null_condition(components, len(batch.indices))
    x_0 = components.model.decode(point.x_T, point.noise, point.cond, reverse, null)
    return SampledBatch(point.x_T, components.space.decode(x_0), point.raw_condition)


@torch.inference_mode()
def starting_point(components: Components, settings: SampleConfig, batch: BatchInput) -> StartingPoint:
    """Return what the sampler of `sample_batch` starts from."""
    model, space, device = components.model, components.space, device_of(components.model)
    raw, raw_condition = _raw_condition(components, batch)
    cond = batch.cond
    if cond is None:
        cond = components.condition.encode(raw_condition if raw is None else {**raw_condition, "raw": raw})
    cond = {key: value.to(device) for key, value in cond.items()}
    noise = Noise(batch.seed, batch.indices, device) if batch.noise is None else batch.noise
    if batch.x_t is not None:
        x_T = batch.x_t.to(device)
    elif batch.start == "gaussian":
        x_T = noise.normal(space.shape)
    elif batch.start == "data":
        assert raw is not None
        x_T = model.denoiser.schedule.q_sample_T(space.encode(raw.to(device)), noise.normal(space.shape))
    else:
        z = noise.normal(model.prior.z_shape) if batch.z is None else batch.z.to(device)
        null = null_condition(components, len(batch.indices))
        x_T = model.x_T_of(z, cond, null=null, **prior_options(settings))
    return StartingPoint(x_T, noise, cond, raw_condition)


def sample_in_batches(components: Components, settings: SampleConfig, examples: BatchInput) -> Tensor:
    """Return all raw examples of an input on the CPU, sampled `settings.batch` at a time."""
    call = lambda part: sample_batch(components, settings, examples.part(part)).raw
    return in_batches(len(examples.indices), settings.batch, call)


def in_batches(n: int, size: int, call: Callable[[range], Tensor]) -> Tensor:
    """Call a function on each batch of 0..n-1; return its results as one tensor on the CPU."""
    return torch.cat([call(part).cpu() for part in pieces_of(n, size)])


def rows_of(cond: Cond, rows: slice) -> Cond:
    """Return some rows of encoded conditions."""
    return {key: value[rows] for key, value in cond.items()}


class GeneratedDataset:
    """Examples 0..n-1 of a model, sampled when they are read: example k is the one that `tdpm sample` writes."""

    def __init__(
        self, components: Components, settings: SampleConfig, seed: int, n: int, *, start: Start = "prior",
        data: Examples | None = None,
    ) -> None:  # fmt: skip
        self.components, self.settings, self.seed, self.n = components, settings, seed, n
        self.start, self.data = start, data

    def __len__(self) -> int:
        return self.n

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        sampled = sample_batch(self.components, self.settings, self._batch(indices))
        return sampled.raw.cpu(), sampled.raw_condition

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the conditions of these examples without sampling the examples."""
        if self.data is not None and self.start == "data":
            return self.data.raw_condition(indices)
        return self.components.condition.draw(len(indices), Noise(self.seed, indices))

    def x_T(self, indices: Sequence[int]) -> Tensor:
        """Return x_T [len(indices), *shape] of these examples."""
        return starting_point(self.components, self.settings, self._batch(indices)).x_T

    def _batch(self, indices: Sequence[int]) -> BatchInput:
        return BatchInput(self.seed, indices, start=self.start, data=self.data)


def _raw_condition(components: Components, batch: BatchInput) -> tuple[Tensor | None, RawCondition]:
    """Return the examples of `data` where the batch starts from them, and the raw conditions of the batch."""
    if batch.start == "data":
        assert batch.data is not None, "the start 'data' needs data"
        raw, raw_condition = batch.data[batch.indices]
        return raw, raw_condition if batch.raw_condition is None else batch.raw_condition
    if batch.raw_condition is not None:
        return None, batch.raw_condition
    if batch.cond is not None:
        return None, {}
    return None, components.condition.draw(len(batch.indices), Noise(batch.seed, batch.indices))
