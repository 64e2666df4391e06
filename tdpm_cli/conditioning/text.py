"""Captions, as the vectors of a text encoder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import torch
from torch import nn

from tdpm_cli.config.registry import load
from tdpm_cli.config.types import ExternalPath, Positive, Probability, RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Text"]

KEPT_EXAMPLES = 1000  # captions that a model keeps to draw from
CLASS = "{class}"  # the place of a class's name in a template


class CaptionVectors(Protocol):
    """What a text encoder makes of captions: tensors for networks, which have `dim` values for each token."""

    dim: int

    def encode(self, texts: Sequence[str]) -> Cond:
        """Turn texts into tensors."""

    def null(self, n: int) -> Cond:
        """Return the tensors of "nothing", n times."""

    def text_encoder(self) -> nn.Module | None:
        """Return the network that is trained with the model; None if there is none."""

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts; yield the number of texts processed since the last yield."""

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts with too many tokens."""


class Text:
    """`context` [B, tokens, D], the vectors of a caption's tokens, and `pooled` [B, D], that of the whole caption.

    `text_encoder` names the component that computes them, and `weights` the folder of its network, if it needs one.
    Captions are truncated to `tokens` tokens. For data with classes and without captions, `templates` make captions of
    the class's name. Training notes the `names` of classes, some `examples` of captions to draw from, and the encoder's
    `dim`, which may be chosen for an encoder that is trained with the model.
    """

    option = "--prompt"

    def __init__(
        self, *, text_encoder: str = "minilm", weights: ExternalPath | None = None, tokens: Positive = 16,
        dropout: Probability = 0.1,
        templates: list[str] = ["a photo of a {class}"],  # noqa: B006 (never written to)
        names: list[str] = [], examples: list[str] = [], dim: Positive | None = None,  # noqa: B006
    ) -> None:  # fmt: skip
        encoder = load("text_encoder", text_encoder, "condition.text_encoder")(Path(weights) if weights else None)
        if tokens > encoder.limit:
            raise InputError(f"condition.tokens is {tokens}, but {text_encoder!r} accepts at most {encoder.limit}")
        if wrong := [template for template in templates if CLASS not in template]:
            raise InputError(f"condition.templates: found {wrong[0]!r}; expected {CLASS} where the class's name goes")
        self.tokens, self.dropout, self.templates, self.names, self.examples = (
            tokens, dropout, templates, names, examples)  # fmt: skip
        self.vectors: CaptionVectors = encoder.vectors(tokens, dim)
        self.dim = self.vectors.dim
        self.sizes = {"context": self.dim, "pooled": self.dim}

    def encode(self, raw_condition: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Encode one caption of each example: drawn by the generator, or the first. Raises as `captions_of` does."""
        captions = self.captions_of(raw_condition)
        chosen = [texts[k] for texts, k in zip(captions, _draw_positions(captions, generator), strict=True)]
        return self.vectors.encode(chosen)

    def null(self, n: int) -> Cond:
        """Return the empty caption, n times."""
        return self.vectors.null(n)

    def text_encoder(self) -> nn.Module | None:
        """Return the encoder's network if it is trained with the model."""
        return self.vectors.text_encoder()

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Draw captions uniformly from the examples."""
        if not self.examples:
            raise InputError("the model has no captions to draw from; write some with --prompt or --prompts FILE")
        return {"captions": [(self.examples[k],) for k in noise.choice(len(self.examples)).tolist()]}

    def fit(self, dataset: Dataset) -> dict[str, object]:
        """Return the names of the classes, examples of captions drawn at random, and the encoder's size."""
        self.names = self.names or list(dataset.class_names)
        if self.examples:
            return {"names": self.names, "examples": self.examples, "dim": self.dim}
        captions = self.captions_of(dataset.raw_condition(_chosen(len(dataset))))
        examples = sorted({text for texts in captions for text in texts})
        return {"names": self.names, "examples": [examples[k] for k in _chosen(len(examples))], "dim": self.dim}

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Return n captions that repeat the prompts. Raises InputError for an empty prompt."""
        if empty := [k for k, text in enumerate(texts, 1) if not text.strip()]:
            raise InputError(f"prompt {empty[0]} of {len(texts)} is empty; describe the image")
        return {"captions": [(texts[k % len(texts)].strip(),) for k in range(n)]}

    def captions_of(self, raw_condition: RawCondition) -> list[tuple[str, ...]]:
        """Return the captions of each example: its own, or its class in every template.

        Raises InputError for data with neither captions nor classes.
        """
        if "captions" in raw_condition:
            return list(raw_condition["captions"])
        if "label" not in raw_condition:
            raise InputError(
                "condition.name is 'text', but the data have neither captions nor classes; add a .txt beside each "
                'image, or "captions" to dataset.json, or use condition.name=none'
            )
        by_class = [tuple(template.replace(CLASS, name) for template in self.templates) for name in self.names]
        return [by_class[label] for label in raw_condition["label"].tolist()]

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts once, on a device; yield the number of texts processed since the last yield."""
        yield from self.vectors.prepare(texts, device)

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are longer than `tokens`."""
        return list(self.vectors.truncated(texts))


def _chosen(count: int) -> list[int]:
    """Return at most KEPT_EXAMPLES positions, drawn at random, in order."""
    return sorted(torch.randperm(count, generator=torch.Generator().manual_seed(0))[:KEPT_EXAMPLES].tolist())


def _draw_positions(captions: Sequence[Sequence[str]], generator: torch.Generator | None) -> list[int]:
    """Draw the position of one caption of each example; without a generator, 0."""
    if generator is None:
        return [0] * len(captions)
    uniform = torch.rand(len(captions), generator=generator, device=generator.device).tolist()
    return [int(u * len(texts)) for u, texts in zip(uniform, captions, strict=True)]
