"""Embed all captions of a dataset before the first step of training."""

from collections.abc import Iterator, Sequence
from typing import Protocol, runtime_checkable

import torch

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset, pieces_of
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import ProgressBar, print_line
from tdpm_cli.runtime.signals import Interrupted, Interruption

READ_TOGETHER = 10_000  # examples whose captions are read at a time


@runtime_checkable
class EmbedsCaptions(Protocol):
    """A condition that embeds captions, once each."""

    tokens: int  # of the longest caption

    def captions_of(self, raw_condition: RawCondition) -> list[tuple[str, ...]]:
        """Return the captions of each example."""

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts; yield the number of texts processed since the last yield."""

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are longer than `tokens`."""


def embed_captions(condition: object, dataset: Dataset, device: torch.device) -> None:
    """Embed every distinct caption of a dataset, and report how many are truncated; other conditions need nothing.

    The processes of a machine divide the captions and read the others' embeddings from the cache. Raises Interrupted
    when stopped; what was embedded is kept.
    """
    if not isinstance(condition, EmbedsCaptions):
        return
    texts: set[str] = set()
    for piece in pieces_of(len(dataset), READ_TOGETHER):
        raw_condition = dataset.raw_condition(piece)
        texts.update(text for captions in condition.captions_of(raw_condition) for text in captions)
    ordered = sorted(texts)
    _embed(condition, distributed.own_here(ordered), device)
    distributed.wait()
    if distributed.size() > 1:
        _embed(condition, ordered, device)  # all are in the cache, unless it cannot be written
    if truncated := condition.truncated(ordered):
        print_line(
            f"note: {len(truncated):,} of {len(texts):,} captions have more than {condition.tokens} tokens and are "
            f"truncated, such as {truncated[0]!r}; raise condition.tokens to use more"
        )


def _embed(condition: EmbedsCaptions, texts: Sequence[str], device: torch.device) -> None:
    with ProgressBar("embed captions", len(texts), unit="captions") as bar, Interruption() as interrupted:
        for count in condition.prepare(texts, device):
            bar.advance(count)
            if interrupted.number:
                raise Interrupted(
                    interrupted.number, "stopped; the embeddings are kept: run the same command to continue"
                )
