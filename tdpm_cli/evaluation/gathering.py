"""Extract the features of examples, by one process or several, and summarise them."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from torch import Tensor

from tdpm_cli.data.stored_images import reject_broken
from tdpm_cli.evaluation.batches import Batch, batches_of
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.evaluation.extractors import Extractor, PreparesImages, TextExtractor
from tdpm_cli.evaluation.summary import Summary, SummaryBuilder
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.errors import InputError


@dataclass(frozen=True)
class Gatherer:
    """Summarises examples: `keep` of their features, their images if `images`, and their fit to captions by `text`.

    `extractor` is None for points, whose features are their coordinates. `batch` examples are extracted at a time.
    """

    extractor: Extractor | None
    batch: int
    keep: int
    images: bool = False
    text: TextExtractor | None = None

    def summarise(self, label: str, examples: Examples, n: int, dimension: int | None = None) -> Summary:
        """Summarise the first n examples. Raises InputError for features of another than this dimension.

        Also raises InputError for features that are not finite and for too many broken files.
        """
        builder, broken = SummaryBuilder(n, self.keep), list(examples.broken)
        with ProgressBar(f"features of {label}", n) as bar:
            for batch, alignment in distributed.together(self._features_of(examples, n)):
                if len(batch.indices):
                    check_dimension(batch.x.shape[1], dimension)
                    self._add(builder, label, batch, alignment)
                broken += batch.broken
                bar.advance(len(batch.indices) + len(batch.broken))
        reject_broken(examples.text, broken, examples.files or len(examples))
        return replace(builder.summary(tuple(broken)), classes=tuple(examples.classes))

    def _features_of(self, examples: Examples, n: int) -> Iterator[tuple[Batch, Tensor | None]]:
        """Yield this process's batches, with features [B, D] in place of the examples, and their alignment [B]."""
        prepare = self.extractor.prepare if isinstance(self.extractor, PreparesImages) else None
        keep_raw = self.images or self.text is not None
        for batch in batches_of(examples, self.batch, n, prepare, keep_raw):
            if not len(batch.indices):
                yield batch, None
                continue
            features = batch.x.float().flatten(1) if self.extractor is None else self.extractor(batch.x).cpu()
            alignment = None
            if self.text is not None and batch.raw is not None:
                alignment = self.text.alignment(self.text(batch.raw), batch.raw_condition["captions"])
            yield replace(batch, x=features, raw=batch.raw if self.images else None), alignment

    def _add(self, builder: SummaryBuilder, label: str, batch: Batch, alignment: Tensor | None) -> None:
        try:
            builder.update(batch.indices, batch.x, batch.raw_condition.get("label"))
        except ValueError as error:
            raise InputError(f"{label}: {error}; the model or the weights of the features are damaged") from None
        if batch.raw is not None:
            builder.add_images(batch.indices, batch.raw)
        if alignment is not None:
            builder.add_alignment(alignment)


def check_dimension(dimension: int, expected: int | None) -> None:
    """Raise InputError for features of another dimension than that of the reference's statistics."""
    if expected is not None and dimension != expected:
        raise InputError(
            f"the samples have {dimension} features, the reference has {expected}; use the features that the "
            "statistics were computed with"
        )
