"""The interface of a metric, and the scores that metrics return.

A file in `metrics/` exports one class that implements `Metric`. It also sets module constants, which the command line
and the docs read without importing PyTorch:

    DEFINITION   how the metric is computed, with its source; part of every protocol
    NEEDS        what the metric reads of each side, of `Need`
    DATA         "images" or "points" for a metric of one kind of data; absent for a metric of both
"""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from tdpm_cli.config import registry
from tdpm_cli.evaluation.summary import Summary
from tdpm_cli.runtime.errors import InputError

Need = Literal[
    "moments",  # mean and covariance of the features of all examples
    "features",  # the features of a random part of the examples, see Summary.random_features
    "all_features",  # the features of all examples
    "labels",  # the class of every example
    "captions",  # how well each sample fits its caption, see Summary.alignment
    "images",  # the images of which features are kept, unchanged
]
IMAGE_METRIC, POINT_METRIC = "fid", "sliced_wasserstein"  # the distance that every score begins with


@dataclass(frozen=True)
class Score:
    """One figure. `error` is its standard error, or over several seeds their standard deviation.

    `group` is "class" for the score of one class, named by the class. `pairs` are numbers of (sample, reference
    example) that explain the score, the most striking first; the report shows them as images.
    """

    name: str
    value: float
    error: float | None = None
    group: Literal["all", "class"] = "all"
    pairs: tuple[tuple[int, int], ...] = ()

    @property
    def text(self) -> str:
        """The value to four digits, and its error."""
        return f"{self.value:.4g}" + ("" if self.error is None else f" ± {self.error:.2g}")


class Metric(Protocol):
    """Compares samples with a reference."""

    def __call__(self, samples: Summary, reference: Summary) -> list[Score]:
        """Score samples against a reference. Raises InputError if there are too few of either."""


@dataclass(frozen=True)
class NamedMetric:
    """A metric of the registry, with the constants of its file."""

    name: str
    needs: frozenset[str]
    definition: str
    data: str | None
    compute: Metric


def load_metrics(names: Iterable[str], option: str = "--metrics") -> list[NamedMetric]:
    """Load metrics by name or alias, each once, in this order. Raises InputError, naming `option`, for other names."""
    resolved = dict.fromkeys(registry.resolve("metric", name, option) for name in names)
    return [load_metric(name) for name in resolved]


def load_metric(name: str) -> NamedMetric:
    """Load one metric by its own name."""
    constant = lambda key, default: registry.constant("metric", name, key, default)
    return NamedMetric(
        name, frozenset(constant("NEEDS", ())), constant("DEFINITION", ""), constant("DATA", None),
        registry.load("metric", name)(),
    )  # fmt: skip


def check_data(metrics: Iterable[NamedMetric], points: bool, source: str) -> None:
    """Raise InputError for a metric that does not score the kind of data that `source` contains."""
    kind, distance = ("points", POINT_METRIC) if points else ("images", IMAGE_METRIC)
    for metric in metrics:
        if metric.data not in (None, kind):
            raise InputError(f"--metrics {metric.name}: scores {metric.data}; {source} contains {kind}; use {distance}")
