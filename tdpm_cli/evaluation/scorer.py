"""Scores of images or points against a reference: what is measured, and the name that it has earned.

Images are compared by features; points are their own. The distance (Fréchet of features, sliced Wasserstein of
points) is always measured; KID, precision and so on where asked for.
"""

import statistics
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.config import registry
from tdpm_cli.data.stored_images import reject_broken
from tdpm_cli.evaluation import distances as scores
from tdpm_cli.evaluation.inputs import Examples, Input, Statistics
from tdpm_cli.evaluation.reading import Batch, batches_of
from tdpm_cli.evaluation.summary import Gathering, Summary, cached
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import Meter, say
from tdpm_cli.runtime.errors import InputError

DEFINITIONS = {  # what can be asked for beside the distance, and how it is computed
    "kid": "KID: unbiased MMD² of the kernel (x·y/D + 1)³, mean and standard error of 100 random subsets of 1000, "
    "or of half of the smaller side (Bińkowski 2018)",
    "prdc": "precision, recall: 3 neighbours (Kynkäänniemi 2019); density, coverage: 5 neighbours (Naeem 2020)",
    "memorised": "share of samples nearer to a training example than that one's nearest fellow is",
    "text": "by clip: 100 · max(cos, 0) of the features of images and of their captions (Hessel 2021); by image-text: "
    "the percentage of images that find their caption among 10 (R@1); mean and standard error",
    "classes": "the distance of each class alone, and their mean",
}
DISTANCES = {
    True: "Fréchet distance of feature means and unbiased covariances, from eigenvalues in float64 (Heusel 2017)",
    False: "sliced 2-Wasserstein distance, 512 random directions (Bonneel 2015)",
}
KEEP = 10_000  # examples of each side, drawn at random, that KID and precision and its kin are computed from


@dataclass(frozen=True)
class Score:
    """One figure under its own name. `error` is its standard error, or over repeats the standard deviation."""

    name: str
    value: float
    error: float | None = None

    @property
    def text(self) -> str:
        """The figure to four digits."""
        return f"{self.value:.4g}" + ("" if self.error is None else f" ± {self.error:.2g}")


@dataclass(frozen=True)
class Found:
    """What was measured of one set of samples. `neighbours` are (sample, training example) numbers, nearest first."""

    scores: list[Score]
    n: int
    broken: tuple[str, ...]
    classes: dict[str, float]
    neighbours: list[tuple[int, int]]


class Scorer:
    """Scores of samples against one reference, whose features are computed once, or taken from the cache.

    `extract` is a part of `parts/features`, or None for points; `judge` another, that tells how well images fit their
    captions. Raises InputError for a reference that is too small, or that does not have what `extras`, of DEFINITIONS,
    need.
    """

    def __init__(
        self, reference: Input, extract: Any, *, judge: Any = None, batch: int = 64, extras: Collection[str] = (),
        cache: bool = True,
    ) -> None:  # fmt: skip
        self.reference, self.extract, self.judge, self.batch = reference, extract, judge, batch
        self.extras = tuple(extras)
        self.name = "" if extract is None else str(extract.protocol["name"])
        self.cache = cache and extract is not None
        self._noted = set[int]()  # counts that were too small, and said to be
        if isinstance(reference, Examples) and len(reference) < 2:
            raise InputError(f"{reference.text}: {len(reference)} references: a score needs at least 2")

    @cached_property
    def summary(self) -> Summary:
        """What is kept of the reference. Raises InputError for statistics that do not fit."""
        reference = self.reference
        if isinstance(reference, Statistics):
            return self._from_statistics(reference)
        build = lambda: self._gather("reference", reference, len(reference))
        if not self.cache:
            return build()
        key = {"reference": reference.sha256(), "features": self._protocol, "keep": self._keep(len(reference))}
        return cached(key | {"versions": versions()}, build)

    def score(self, samples: Input, n: int | None = None) -> Found:
        """Score the first n of the samples. Raises InputError where there are too few, or they do not fit."""
        check_fit(samples, self.reference, self.extract is None, self.extras)
        self._check_text(samples)
        data, drawn = self.summary, self._summary_of(samples, n)
        self._check_rank(drawn)
        found = [Score(self._distance_name(samples, drawn), self._distance(drawn, data))]
        if "kid" in self.extras:
            found.append(Score(self._kernel_name(), *scores.kernel_distance(drawn.some(KEEP), data.some(KEEP))))
        if "prdc" in self.extras:
            found += _prdc(data.some(KEEP), drawn.some(KEEP))
        if drawn.alignment is not None:
            error = float(drawn.alignment.std() / len(drawn.alignment) ** 0.5)
            name = f"{self.judge.protocol['name']} {getattr(self.judge, 'text_score', 'text score')}"
            found.append(Score(name, float(drawn.alignment.double().mean()), error))
        neighbours: list[tuple[int, int]] = []
        if "memorised" in self.extras:
            mask, index, ratio = scores.memorised(data.features, drawn.features)
            found.append(Score("memorised", float(mask.double().mean())))
            neighbours = [(int(drawn.indices[k]), int(data.indices[index[k]])) for k in ratio.argsort()[:8].tolist()]
        classes = self._classes(drawn, samples) if "classes" in self.extras else {}
        return Found(found, drawn.count, drawn.broken, classes, neighbours)

    def _summary_of(self, samples: Input, n: int | None) -> Summary:
        if isinstance(samples, Statistics):
            return self._from_statistics(samples)
        count = min(n or len(samples), len(samples))
        if count < 2:
            raise InputError(f"{samples.text}: {count} samples: a score needs at least 2")
        return self._gather("samples", samples, count)

    def _distance_name(self, samples: Input, drawn: Summary) -> str:
        unknown = any(isinstance(side, Statistics) and side.protocol is None for side in (samples, self.reference))
        return distance_name(f"{self.name or 'features'} (unknown protocol)" if unknown else self.name, drawn.count)

    @property
    def protocol(self) -> dict[str, Any]:
        """What a score by this scorer depends on, beside the samples."""
        reference = self.reference
        if isinstance(reference, Examples):
            about: dict[str, Any] = reference.about
        else:
            about = {"statistics": reference.protocol}
        return {
            "reference": {
                "text": reference.text,
                "sha256": reference.sha256(),
                "n": self.summary.count,
                "broken": list(self.summary.broken),
                **about,
            },
            "features": self._protocol,
            "text": self.judge and {**self.judge.protocol, "definition": DEFINITIONS["text"]},
            "quantised": "uint8 before features" if self.extract is not None else None,
            "definitions": [DISTANCES[self.extract is not None], *(DEFINITIONS[key] for key in self.extras)],
            "kept": KEEP if self.extras else None,
        }

    @property
    def _protocol(self) -> dict[str, Any] | None:
        return None if self.extract is None else self.extract.protocol

    @property
    def _prepare(self) -> Any:
        return getattr(self.extract, "prepare", None)

    def _keep(self, total: int) -> int:
        """How many features of a side of `total` are kept, beside their moments."""
        # A copy may be of any training example, a class is scored whole, and points are compared whole.
        if self.extract is None or {"memorised", "classes"} & set(self.extras):
            return total
        return min(KEEP, total) if self.extras else 0

    def _gather(self, label: str, source: Examples, n: int) -> Summary:
        gathering, broken, alignment = Gathering(n, self._keep(n)), list(source.broken), list[Tensor]()
        captioned = self.judge is not None and label == "samples"
        own = map(self._with_features, batches_of(source, self.batch, n, self._prepare, captioned))
        with Meter(f"features of {label}", n) as meter:
            for batch in distributed.together(own):
                if len(batch.indices):
                    if isinstance(self.reference, Statistics):
                        self._check_dimension(batch.x.shape[1])
                    try:
                        gathering.update(batch.indices, batch.x, batch.cond.get("label"))
                    except ValueError as error:
                        raise InputError(f"{label}: {error}; the model or the features' weights are damaged") from None
                    if captioned:
                        alignment.append(batch.cond["alignment"])
                broken += batch.broken
                meter.advance(len(batch.indices) + len(batch.broken))
        reject_broken(source.text, broken, source.files or len(source))
        summary = gathering.summary(tuple(broken))
        return replace(summary, alignment=torch.cat(alignment)) if captioned else summary

    def _with_features(self, batch: Batch) -> Batch:
        """The batch with features [B, D] in place of examples, and with "alignment" [B] where raw images were kept."""
        if not len(batch.indices):
            return batch
        x = batch.x.float().flatten(1) if self.extract is None else self.extract(batch.x).cpu()
        if batch.raw is None:
            return replace(batch, x=x)
        alignment = self.judge.alignment(self.judge(batch.raw), batch.cond["captions"])
        return replace(batch, x=x, raw=None, cond={**batch.cond, "alignment": alignment})

    def _distance(self, first: Summary, second: Summary) -> float:
        if self.extract is None:
            return scores.sliced_wasserstein(first.features, second.features)
        return scores.frechet((first.mean, first.covariance), (second.mean, second.covariance))

    def _from_statistics(self, given: Statistics) -> Summary:
        if self.extras or self.extract is None:
            raise InputError(f"{given.text}: statistics know the Fréchet distance of images alone; give their images")
        theirs = (given.protocol or {}).get("features")
        if theirs is not None and theirs != self._protocol:
            raise InputError(f"{given.text}: statistics of {theirs}, but the features are {self._protocol}; "
                             "make them again with --ref-only, or name their features")  # fmt: skip
        if given.protocol is None:
            say(f"{given.text} does not say how it was made; the score says so in its name")
        n = int((given.protocol or {}).get("n", 0))
        none = torch.zeros(0)
        return Summary(n, given.mean, given.covariance, none, none)

    def _check_rank(self, drawn: Summary) -> None:
        if self.extract is None:
            return
        dimension, data = len(drawn.mean), self.summary
        self._check_dimension(dimension)
        fewest = min((side.count for side in (drawn, data) if side.count), default=dimension + 1)
        if fewest <= dimension and fewest not in self._noted:
            self._noted.add(fewest)
            say(f"note: {fewest:,} examples for {dimension:,} features: a covariance without full rank; "
                "the distance is biased upwards, and comparable at this n only")  # fmt: skip

    def _check_dimension(self, dimension: int) -> None:
        if len(self.summary.mean) != dimension:
            raise InputError(f"{self.reference.text}: statistics of {len(self.summary.mean)} features, but "
                             f"{self.name!r} gives {dimension}: of another extractor")  # fmt: skip

    def _check_text(self, samples: Input) -> None:
        """Raise InputError where a text score is asked of images without captions."""
        if self.judge is None:
            return
        if not isinstance(samples, Examples) or "captions" not in samples.data[[0]][1]:
            raise InputError(f"--text, but {samples.text} has no captions: it needs a .txt beside every image, or "
                             "'captions' in dataset.json")  # fmt: skip

    def _kernel_name(self) -> str:
        return "KID" if self.name == "inception" else f"KD-{self.name}" if self.name else "KD"

    def _classes(self, drawn: Summary, samples: Input) -> dict[str, float]:
        """The distance of each class that both sides have at least 2 examples of, by its name."""
        assert isinstance(self.reference, Examples), "statistics were refused"
        assert isinstance(samples, Examples), "statistics were refused"
        assert drawn.labels is not None, "no classes were refused"
        assert self.summary.labels is not None, "no classes were refused"
        theirs = samples.classes if set(samples.classes) & set(self.reference.classes) else self.reference.classes
        found = {}
        for name in [name for name in self.reference.classes if name in theirs]:
            real = self.summary.features[self.summary.labels == self.reference.classes.index(name)]
            fake = drawn.features[drawn.labels == theirs.index(name)]
            if min(len(real), len(fake)) >= 2:
                if self.extract is None:
                    found[name] = scores.sliced_wasserstein(fake, real)
                else:
                    found[name] = scores.frechet(scores.moments(fake), scores.moments(real))
        return found


def check_fit(samples: Input, reference: Input, points: bool, extras: Collection[str]) -> None:
    """Raise InputError for samples and a reference that cannot be compared, before any work is done on them."""
    sides = [side for side in (samples, reference) if isinstance(side, Examples)]
    for side in sides:
        if (len(side.shape) != 3) != points:
            raise InputError(f"{samples.text} against {reference.text}: images are scored against images, points "
                             "against points")  # fmt: skip
        if "classes" in extras and not side.classes:
            raise InputError(f"--per-class, but {side.text} has no classes: its model is unconditional, or its files "
                             "lie in no class folders")  # fmt: skip
    if len(sides) < 2:
        return
    ours, theirs = sides
    if ours.shape != theirs.shape:
        raise InputError(f"{ours.text}: examples of {_shape_text(ours.shape)}, but {theirs.text} has "
                         f"{_shape_text(theirs.shape)}; bring both to one size and mode, stating how")  # fmt: skip
    if "classes" in extras and not set(ours.classes) & set(theirs.classes) and len(ours.classes) != len(theirs.classes):
        raise InputError(f"--per-class, but {ours.text} has {len(ours.classes)} classes and {theirs.text} "
                         f"{len(theirs.classes)}, and no name in common")  # fmt: skip


def merge(repeats: Sequence[Found]) -> tuple[list[Score], dict[str, Score]]:
    """Scores, and those of each class that all repeats have, as mean and standard deviation over several repeats."""
    common = [name for name in repeats[0].classes if all(name in each.classes for each in repeats)]
    columns = [
        [*each.scores, *_mean_of_classes([each.classes[name] for name in common]),
         *(Score(name, each.classes[name]) for name in common)]
        for each in repeats
    ]  # fmt: skip
    merged = columns[0]
    if len(repeats) > 1:
        values = [[score.value for score in same] for same in zip(*columns, strict=True)]
        merged = [
            Score(score.name, statistics.fmean(same), statistics.stdev(same))
            for score, same in zip(columns[0], values, strict=True)
        ]
    whole = len(merged) - len(common)
    return merged[:whole], {score.name: score for score in merged[whole:]}


def _mean_of_classes(values: Sequence[float]) -> list[Score]:
    return [Score(f"mean of {len(values)} classes", statistics.fmean(values))] if values else []


def judge_of(text: str | None, device: torch.device) -> Any:
    """The features, "name" or "name:weights", that tell how well images fit captions; None for None."""
    if text is None:
        return None
    found = extractor(text, None, device, "--text")
    if not hasattr(found, "alignment"):
        raise InputError(f"--text is {text!r}, but these features know no text; accepted: clip, or image-text:FILE, "
                         "which `tdpm data matcher` trains")  # fmt: skip
    return found


def extractor(features: str, weights: Path | None, device: torch.device, option: str = "--features") -> Any:
    """The part of `parts/features` that "name" or "name:weights" asks for by an option, with its weights read."""
    name, _, path = features.partition(":")
    if path and weights:
        raise InputError(f"{option} {features} and --weights {weights}: give the weights once")
    given = Path(path) if path else weights
    found = registry.load("features", name, option)(device, given)
    if given is not None and found.protocol["name"] == name != "inception":  # Inception knows its published file
        found.protocol["name"] += f"-{found.protocol['weights_sha256'][:8]}"
    return found


def _prdc(real: Tensor, fake: Tensor) -> list[Score]:
    smaller = min(len(real), len(fake))
    if smaller <= 5:
        raise InputError(f"{smaller} examples: precision and its kin need more than 5 of each, for 5 neighbours")
    # Precision and recall were published with 3 neighbours, density and coverage with 5.
    return [
        Score(f"{name} (k = {k})", value)
        for k, names in ((3, ("precision", "recall")), (5, ("precision", "recall", "density", "coverage")))
        for name, value in scores.prdc(real, fake, k).items()
        if name in names
    ]


def versions() -> dict[str, str]:
    """Of the packages that features and scores are computed by."""
    return {package: version(package) for package in ("tdpm-cli", "torch", "numpy", "pillow", "clean-fid")}


def distance_name(features: str, n: int) -> str:
    """ "FID" only for clean-fid's Inception and 50,000 images; fewer are named, and so are other features."""
    if not features:
        return "sliced W2"
    name = "FID" if features == "inception" else f"FD-{features}"
    if n == 0:  # of statistics that do not say
        return f"{name}, n unknown"
    if n >= 50_000:
        return name
    return f"{name}-{n // 1000}k" if n % 1000 == 0 else f"{name}-{n}"


def _shape_text(shape: tuple[int, ...]) -> str:
    if len(shape) != 3:
        return f"{shape[0]} coordinates"
    return f"{'grey' if shape[0] == 1 else 'colour'} {shape[2]}×{shape[1]}"
