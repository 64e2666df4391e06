"""Captions, as vectors of a text encoder."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tdpm_cli.config.registry import load
from tdpm_cli.config.types import Positive, Probability, RawCondition
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Text"]

EXAMPLES = 1000  # captions that a model keeps to draw from


class Text:
    """`context` [B, tokens, D], the vectors of a caption's tokens, and `pooled` [B, D], that of the whole.

    `text_encoder` names a part that makes them, `weights` the folder of its network where it needs one. `tokens` is the
    longest caption: longer ones are cut. Where data have classes and no captions, `templates` make them, with the
    class's name for {class}. `names` of classes, some `examples` of captions, to draw from, and the encoder's `dim` are
    noted when training starts; `dim` is to be chosen where the encoder is trained with the model.
    """

    option = "--prompt"

    def __init__(
        self, *, text_encoder: str = "minilm", weights: str | None = None, tokens: Positive = 16,
        dropout: Probability = 0.1,
        templates: list[str] = ["a photo of a {class}"],  # noqa: B006 (never written to)
        names: list[str] = [], examples: list[str] = [], dim: Positive | None = None,  # noqa: B006
    ) -> None:  # fmt: skip
        made = load("text_encoder", text_encoder, "condition.text_encoder")(Path(weights) if weights else None)
        if tokens > made.limit:
            raise InputError(f"condition.tokens is {tokens}, but {text_encoder!r} takes at most {made.limit}")
        if without := [template for template in templates if "{class}" not in template]:
            raise InputError(f"condition.templates: {without[0]!r} has no place {{class}} for the class's name")
        self.tokens, self.dropout, self.templates, self.names, self.examples = (
            tokens, dropout, templates, names, examples)  # fmt: skip
        self.words = made.words(tokens, dim)
        self.dim = self.words.dim
        self.sizes = {"context": self.dim, "pooled": self.dim}

    def encode(self, given: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Take captions in. Raises InputError where there are none, and no classes to make them of."""
        captions = self.captions_of(given)
        chosen = [texts[k] for texts, k in zip(captions, _drawn(captions, generator), strict=True)]
        return self.words.encode(chosen)

    def null(self, n: int) -> Cond:
        """A caption of no words, n times."""
        return self.words.null(n)

    def text_encoder(self) -> nn.Module | None:
        """The encoder's network, where it is trained with the model."""
        return self.words.text_encoder()

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Captions drawn uniformly from the examples."""
        if not self.examples:
            raise InputError("the model keeps no captions to draw from; give some with --prompt or --prompts FILE")
        return {"captions": [(self.examples[k],) for k in noise.choice(len(self.examples)).tolist()]}

    def fit(self, data: Any) -> dict[str, Any]:
        """Take over class names, and captions of examples drawn at random. Raises InputError where there are none."""
        self.names = self.names or list(data.class_names)
        if self.examples:
            return {"names": self.names, "examples": self.examples, "dim": self.dim}
        order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:EXAMPLES].tolist()
        captions = self.captions_of(data.raw_condition(sorted(order)))
        examples = sorted({text for texts in captions for text in texts})
        order = torch.randperm(len(examples), generator=torch.Generator().manual_seed(0))[:EXAMPLES].tolist()
        return {"names": self.names, "examples": [examples[k] for k in sorted(order)], "dim": self.dim}

    def parse(self, words: Sequence[str], n: int) -> RawCondition:
        """n captions that go round through the prompts. Raises InputError for an empty one."""
        if empty := [k for k, word in enumerate(words, 1) if not word.strip()]:
            raise InputError(f"prompt {empty[0]} of {len(words)} is empty; write what is to be seen")
        return {"captions": [(words[k % len(words)].strip(),) for k in range(n)]}

    def captions_of(self, given: RawCondition) -> list[tuple[str, ...]]:
        """The captions of each example: its own, or its class in every template."""
        if "captions" in given:
            return list(given["captions"])
        if "label" not in given:
            raise InputError(
                "condition.name is 'text', but the data have neither captions nor classes to make them of; add a .txt "
                'beside every image, or "captions" to dataset.json, or use condition.name=none'
            )
        made = [tuple(template.replace("{class}", name) for template in self.templates) for name in self.names]
        return [made[label] for label in given["label"].tolist()]

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Do for texts, on a device, what is done once; yield how many were seen to, time and again."""
        yield from self.words.prepare(texts, device)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than `tokens`."""
        return list(self.words.cut(texts))


def _drawn(captions: Sequence[Sequence[str]], generator: torch.Generator | None) -> list[int]:
    """Which caption of each example."""
    if generator is None:
        return [0] * len(captions)
    uniform = torch.rand(len(captions), generator=generator, device=generator.device).tolist()
    return [int(u * len(texts)) for u, texts in zip(uniform, captions, strict=True)]
