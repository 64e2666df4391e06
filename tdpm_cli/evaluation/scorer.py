"""Score samples against one reference: summarise both sides, then ask each metric in turn."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from functools import cached_property
from importlib.metadata import version

import torch

from tdpm_cli.evaluation import summary as summaries
from tdpm_cli.evaluation.checks import check_count, check_fit
from tdpm_cli.evaluation.examples import Examples, Input, Statistics
from tdpm_cli.evaluation.extractors import Extractor, TextExtractor
from tdpm_cli.evaluation.gathering import Gatherer, check_dimension
from tdpm_cli.evaluation.metric import IMAGE_METRIC, POINT_METRIC, NamedMetric, check_data, load_metrics
from tdpm_cli.evaluation.options import TEXT_METRIC
from tdpm_cli.evaluation.results import Scores
from tdpm_cli.evaluation.summary import Summary
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json


def metrics_of(names: Iterable[str], points: bool, text: bool, source: str) -> list[NamedMetric]:
    """Load the distance of images or points, then the metrics of these names, each once; `text` adds that metric.

    Raises InputError for a metric that does not score the kind of data that `source` contains.
    """
    metrics = load_metrics([POINT_METRIC if points else IMAGE_METRIC, *names, *([TEXT_METRIC] if text else [])])
    check_data(metrics, points, source)
    return metrics


class Scorer:
    """Scores samples against one reference, whose features are computed once or read from the cache.

    `extractor` is None for points; `text` scores captions. `metrics` are those of `metrics_of`, by default the distance
    of the data and with `text` the score of captions. Raises InputError for a reference of fewer than 2 examples.
    """

    def __init__(
        self, reference: Input, extractor: Extractor | None, *, text: TextExtractor | None = None, batch: int = 64,
        metrics: Sequence[NamedMetric] = (), cache: bool = True,
    ) -> None:  # fmt: skip
        self.reference, self.extractor, self.text, self.batch = reference, extractor, text, batch
        self.metrics = list(metrics) or metrics_of((), extractor is None, text is not None, reference.text)
        self.needs = frozenset[str]().union(*(metric.needs for metric in self.metrics))
        self.feature_name = "" if extractor is None else str(extractor.protocol["name"])
        self.cache = cache and extractor is not None
        self._warned_of = set[int]()  # numbers of examples that are too few
        if isinstance(reference, Examples):
            check_count(reference.text, len(reference))

    def score(self, samples: Input, n: int | None = None) -> Scores:
        """Score the first n of the samples, or all. Raises InputError if there are too few, or they do not fit."""
        check_fit(samples, self.reference, self.extractor is None, self.metrics)
        if not isinstance(samples, Statistics):
            check_count(samples.text, min(n or len(samples), len(samples)))  # before the work on the reference
        reference, ours = self.summary, self._summary_of_samples(samples, n)
        ours = replace(ours, feature_name=self._name_of_features(samples))
        self._warn_of_low_rank(ours)
        scores = [score for metric in self.metrics for score in metric.compute(ours, reference)]
        return Scores(tuple(scores), ours.count, ours.broken)

    @cached_property
    def summary(self) -> Summary:
        """The summary of the reference. Raises InputError for statistics that do not fit."""
        reference = self.reference
        if isinstance(reference, Statistics):
            return self._summary_of_statistics(reference)
        gatherer = self._gatherer(len(reference))
        build = lambda: gatherer.summarise("reference", reference, len(reference))
        if self.cache:
            key: dict[str, object] = {
                "reference": reference.sha256(),
                "features": self._feature_protocol,
                "keep": gatherer.keep,
                "versions": versions(),
                **({"images": True} if gatherer.images else {}),
            }
            summary = summaries.cached(key, build)
        else:
            summary = build()
        return replace(summary, feature_name=self.feature_name, classes=tuple(reference.classes))

    @property
    def protocol(self) -> Json:
        """Everything that a score by this scorer depends on, except the samples."""
        reference, (distance, *others) = self.reference, self.metrics
        about = reference.about if isinstance(reference, Examples) else {"statistics": reference.protocol}
        definitions = {metric.name: metric.definition for metric in self.metrics}
        return {
            "reference": {
                "text": reference.text,
                "sha256": reference.sha256(),
                "n": self.summary.count,
                "broken": list(self.summary.broken),
                **about,
            },
            "features": self._feature_protocol,
            "text": self.text and {**self.text.protocol, "definition": definitions[TEXT_METRIC]},
            "quantised": "uint8 before features" if self.extractor is not None else None,
            "definitions": [distance.definition, *(each.definition for each in others if each.name != TEXT_METRIC)],
            "kept": summaries.MAX_FEATURES if any(each.name != TEXT_METRIC for each in others) else None,
        }

    @property
    def _feature_protocol(self) -> dict[str, object] | None:
        return None if self.extractor is None else self.extractor.protocol

    def _gatherer(self, total: int, text: TextExtractor | None = None) -> Gatherer:
        """Return what summarises a side of `total` examples."""
        keep = 0
        # Any training example may be copied, every example of a class counts, and points are compared completely.
        if self.extractor is None or "all_features" in self.needs:
            keep = total
        elif self.needs & {"features", "images"}:
            keep = min(summaries.MAX_FEATURES, total)
        return Gatherer(self.extractor, self.batch, keep, "images" in self.needs, text)

    def _summary_of_samples(self, samples: Input, n: int | None) -> Summary:
        if isinstance(samples, Statistics):
            return self._summary_of_statistics(samples)
        count = min(n or len(samples), len(samples))
        dimension = len(self.summary.mean) if isinstance(self.reference, Statistics) else None
        summary = self._gatherer(count, self.text).summarise("samples", samples, count, dimension)
        text_name = f"{self.text.protocol['name']} {self.text.text_score}" if self.text else ""
        return replace(summary, alignment_name=text_name)

    def _summary_of_statistics(self, statistics: Statistics) -> Summary:
        """Return the summary of a file of statistics. Raises InputError for those of other features."""
        protocol = statistics.protocol or {}
        if (features := protocol.get("features")) is not None and features != self._feature_protocol:
            raise InputError(
                f"{statistics.text}: statistics of the features {features}, but the scored features are "
                f"{self._feature_protocol}; compute the statistics again with --ref-only, or name their features"
            )
        if statistics.protocol is None:
            print_line(f"note: {statistics.text} contains no protocol; the score's name states this")
        none = torch.zeros(0)
        return Summary(int(protocol.get("n", 0)), statistics.mean, statistics.covariance, none, none)

    def _name_of_features(self, samples: Input) -> str:
        sides = (samples, self.reference)
        unknown = any(isinstance(side, Statistics) and side.protocol is None for side in sides)
        return f"{self.feature_name or 'features'} (unknown protocol)" if unknown else self.feature_name

    def _warn_of_low_rank(self, samples: Summary) -> None:
        """Print a warning, once for each number of examples, if a covariance cannot have full rank."""
        if self.extractor is None:
            return
        dimension = len(samples.mean)
        check_dimension(dimension, len(self.summary.mean))
        fewest = min((side.count for side in (samples, self.summary) if side.count), default=dimension + 1)
        if fewest <= dimension and fewest not in self._warned_of:
            self._warned_of.add(fewest)
            print_line(
                f"warning: {fewest:,} examples for {dimension:,} features: the covariance has no full rank, so the "
                "distance is biased upwards; compare it only at this number of examples"
            )


def versions() -> dict[str, str]:
    """Versions of the packages that features and scores are computed with."""
    return {package: version(package) for package in ("tdpm-cli", "torch", "numpy", "pillow", "clean-fid")}
