"""Options of `tdpm eval` and `tdpm sweep`. Imports nothing heavy, so that the command line can build them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tdpm_cli.config import registry
from tdpm_cli.config.external import NOTHING, Confirmation
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json
from tdpm_cli.sampling.options import ConditionedOptions

TEXT_METRIC, CLASSES_METRIC = "text", "classes"  # chosen by --text and --per-class


@dataclass(frozen=True, kw_only=True)
class ScoringOptions:
    """What `tdpm eval` and `tdpm sweep` share.

    `metrics` are names of the registry, in addition to the distance, which is always computed. `ref` names the
    reference, by default the model's training data. `n` samples are scored, `repeats` times with seeds from `seed` on.
    `features` is "name" or "name:weights"; `text` names the features that score captions, None for no such score.
    `external` confirms what stored configs name.
    """

    external: Confirmation = NOTHING

    metrics: Sequence[str] = ()
    ref: str | Path | None = None
    n: int | None = None
    seed: int | None = None
    repeats: int = 1
    features: str | None = None
    weights: Path | None = None
    text: str | None = None
    cache: bool = True
    report: Path | None = None
    overwrite: bool = False  # files that tdpm did not write

    def __post_init__(self) -> None:
        """Raise InputError for the metric of captions without the features that score them."""
        if self.text is None and TEXT_METRIC in {
            registry.resolve("metric", name, "--metrics") for name in self.metrics
        }:
            raise InputError(
                "--metrics contains text, but --text is missing: add --text clip or --text image-text:FILE"
            )


@dataclass(frozen=True, kw_only=True)
class EvaluateOptions(ScoringOptions):
    """Options of `tdpm eval`. `sampling` overrides sampling options of the model's preset."""

    model: Path | None = None
    sampling: Json = field(default_factory=dict)
    diagnose: bool = False
    json_file: Path | None = None


@dataclass(frozen=True, kw_only=True)
class SweepOptions(ScoringOptions):
    """Options of `tdpm sweep`: every combination of these is a row. An empty list means the preset's value."""

    steps: Sequence[int] = (1, 2, 4, 8, 16)
    models: Sequence[Path] = ()
    spacings: Sequence[float] = ()
    samplers: Sequence[str] = ()
    starts: Sequence[str] = ("prior",)
    guidance_scales: Sequence[float] = ()
    prior_guidance_scales: Sequence[float] = ()
    out: Path | None = None


@dataclass(frozen=True, kw_only=True)
class StatisticsOptions:
    """Options of `tdpm eval --ref-only`."""

    out: Path
    features: str | None = None
    weights: Path | None = None
    cache: bool = True
    overwrite: bool = False  # a file that tdpm did not write
    external: Confirmation = NOTHING


@dataclass(frozen=True, kw_only=True)
class ReconstructOptions(ConditionedOptions):
    """Options of `tdpm reconstruct`: every pair of `steps` and of a time in `at` (T if empty) is a row.

    Images are encoded by DDIM's inversion with so many `iterations` of each step, or with a `seed` by q(x_t | x_0).
    """

    steps: Sequence[int] = (4, 8, 16, 32, 64)
    at: Sequence[int] = ()
    n: int | None = 64
    seed: int | None = None
    iterations: int = 1

    @property
    def method(self) -> str:
        """How images are encoded."""
        return "q(x_t | x_0)" if self.seed is not None else f"DDIM's inversion · {self.iterations}"
