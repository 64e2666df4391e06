"""A frozen text network of transformers as a text encoder."""

import json
from collections.abc import Callable, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.conditioning.captions.cache import Embedded, Vectors
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.pretrained import CONFIG, cached, pretrained

OPTION = "condition.weights"  # that names the folder of a text encoder


class TextEncoder:
    """A text network of transformers as an encoder: the last layer's tokens [L, D], and of these `pooled` [D].

    `pooled` makes one vector of a text's tokens [L, D]; `limit` is the most tokens that it takes. The network is
    frozen, in float32 and in eval mode. Raises InputError, when it is first needed, for what cannot be loaded.
    """

    def __init__(
        self, name: str, architecture: str, hub: str, weights: Path | None, dim: int, limit: int,
        pooled: Callable[[Tensor], Tensor],
    ) -> None:  # fmt: skip
        self._given = (name, architecture, hub, weights, OPTION)
        self._pooled, self.device, self.dim, self.limit = pooled, torch.device("cpu"), dim, limit
        if weights is not None and (weights / CONFIG).is_file():
            try:
                settings = json.loads((weights / CONFIG).read_text())
            except ValueError as error:
                raise InputError(f"{weights / CONFIG}: damaged ({error})") from None
            settings = settings.get("text_config") or settings
            self.dim = int(settings.get("d_model") or settings.get("hidden_size") or dim)

    @property
    def identity(self) -> str:
        """What its vectors depend on."""
        return f"{self._given[0]} {self._loaded[2]}"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedded]:
        """Embed each text's first `tokens` tokens, those that mark its ends included."""
        split, network, _ = self._loaded
        lengths = [len(ids) for ids in split(list(texts))["input_ids"]]
        words = split(list(texts), padding=True, truncation=True, max_length=tokens, return_tensors="pt")
        network.to(self.device)
        hidden: Tensor = network(**words.to(self.device)).last_hidden_state.cpu()
        counts = words["attention_mask"].sum(1).tolist()
        return [
            Embedded(vectors[:count], self._pooled(vectors[:count]), length > tokens)
            for vectors, count, length in zip(hidden, counts, lengths, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.device = device

    def words(self, tokens: int, dim: int | None) -> Vectors:
        """What the condition `text` makes of texts."""
        return Vectors(self, tokens, dim)

    @cached_property
    def _loaded(self) -> tuple[Any, Any, str]:
        """Tokenizer, network, and the hash of its weights."""
        network, digest = pretrained(*self._given)
        from transformers import AutoTokenizer

        name, _, hub, weights, option = self._given
        folder = weights or cached(name, hub, option)
        try:
            split = AutoTokenizer.from_pretrained(folder, local_files_only=True)
        except Exception as error:  # OSError for missing files, others for damaged ones
            raise InputError(
                f"{folder}: the tokenizer of {name!r} is not there ({first_line(error)}); give the whole folder that "
                "transformers saved, with tokenizer.json"
            ) from None
        return split, network.requires_grad_(False), digest
