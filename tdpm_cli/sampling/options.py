"""Options of the commands that sample and edit. Imports nothing heavy, so that the command line can build them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tdpm_cli.config.external import NOTHING, Confirmation


@dataclass(frozen=True, kw_only=True)
class OutputOptions:
    """What all commands with an output folder share.

    `model` is a run, a checkpoint or an exported file; None means the newest run. `sampling` overrides sampling options
    of the model's preset: fields of SampleConfig, and options of its sampler. `overwrite` replaces existing content.
    `external` confirms what the stored config names.
    """

    model: Path | None = None
    external: Confirmation = NOTHING
    sampling: Mapping[str, object] = field(default_factory=dict)
    overwrite: bool = False


@dataclass(frozen=True, kw_only=True)
class ConditionedOptions(OutputOptions):
    """Adds the condition: `labels` (classes by number or name) or `prompts`, repeated cyclically."""

    labels: Sequence[str] | None = None
    prompts: Sequence[str] | None = None

    @property
    def condition(self) -> Sequence[str] | None:
        """The labels or the prompts."""
        return self.labels or self.prompts


@dataclass(frozen=True, kw_only=True)
class SampleOptions(ConditionedOptions):
    """Options of `tdpm sample`, which writes samples 0..n-1 of `seed`.

    `n` is 64 by default. `upsample` is a folder of small images, of which a model that enlarges images takes the first
    n, by default all. `format` is png or npz, by default png for images. `compile` compiles the network with PyTorch,
    which rounds differently: a few pixels come out one step brighter or darker.
    """

    n: int | None = None
    seed: int = 0
    upsample: Path | None = None
    format: str | None = None
    compile: bool = False


@dataclass(frozen=True, kw_only=True)
class EncodeOptions(ConditionedOptions):
    """Options of `tdpm encode`: by DDIM's inversion with `iterations` of each step, or with a `seed` by q(x_T | x_0).

    `logits` adds the discriminator's output for each image, noised to T.
    """

    n: int | None = None
    seed: int | None = None
    iterations: int = 1
    logits: bool = False


@dataclass(frozen=True, kw_only=True)
class DecodeOptions(OutputOptions):
    """Options of `tdpm decode`; model and sampling options are those of the encoding by default."""

    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class EditOptions(ConditionedOptions):
    """Options of `tdpm edit`, which adds noise to each image at every strength, a share of T, and denoises it."""

    strengths: Sequence[float] = (0.25, 0.5, 1.0)
    n: int | None = 64
    seed: int = 0


@dataclass(frozen=True, kw_only=True)
class InterpolateOptions(ConditionedOptions):
    """Options of `tdpm interpolate`, between neighbours among `images` through x_T, or among `seeds` through z.

    `frames` counts both ends. `iterations` are those of each step of DDIM's inversion.
    """

    images: str | None = None
    seeds: Sequence[int] = ()
    n: int | None = None
    frames: int = 8
    iterations: int = 1
