"""Text networks of transformers as frozen text encoders."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from tdpm_cli.checkpoints.pretrained import CONFIG, cached, pretrained
from tdpm_cli.conditioning.captions.cache import CachedVectors, Embedding
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.records import Natural, Record, read_record

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

OPTION = "condition.weights"  # the key that names the folder of a text encoder


@dataclass(frozen=True)
class TextNetwork:
    """A text network of transformers.

    `architecture` is its class, `hub` its name on the hub, `dim` the size of its vectors, `limit` the most tokens that
    it accepts. `pool` computes the vector of a text [D] from those of its tokens [L, D].
    """

    name: str
    architecture: str
    hub: str
    dim: int
    limit: int
    pool: Callable[[Tensor], Tensor]


class Sizes(Record):
    """The keys of which one contains the size of vectors."""

    d_model: Natural | None = None
    hidden_size: Natural | None = None


class NetworkConfig(Sizes):
    """The config of a network, of which the text network may be a part."""

    text_config: Sizes | None = None


class TransformersEncoder:
    """A frozen text network, in float32: the tokens [L, D] of the last layer, and their pooled vector [D].

    `weights` is a folder that transformers saved; None is the hub and its cache. Raises InputError, when the network is
    first needed, if it cannot be loaded.
    """

    def __init__(self, network: TextNetwork, weights: Path | None) -> None:
        self._network, self._weights, self.device = network, weights, torch.device("cpu")
        self.dim, self.limit = network.dim, network.limit
        if weights is not None and (weights / CONFIG).is_file():
            self.dim = _dim_in(weights / CONFIG) or network.dim

    @property
    def identity(self) -> str:
        """The name, and the hash of the weights."""
        return f"{self._network.name} {self._loaded[2]}"

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedding]:
        """Embed the first `tokens` tokens of each text, the markers of its ends included."""
        tokenizer, network, _ = self._loaded
        lengths = [len(ids) for ids in tokenizer(list(texts))["input_ids"]]
        batch = tokenizer(list(texts), padding=True, truncation=True, max_length=tokens, return_tensors="pt")
        network.to(self.device)
        hidden: Tensor = network(**batch.to(self.device)).last_hidden_state.cpu()
        counts = batch["attention_mask"].sum(1).tolist()
        return [
            Embedding(vectors[:count], self._network.pool(vectors[:count]), length > tokens)
            for vectors, count, length in zip(hidden, counts, lengths, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self.device = device

    def vectors(self, tokens: int, dim: int | None) -> CachedVectors:
        """Return what the condition `text` encodes captions with."""
        return CachedVectors(self, tokens, dim)

    @cached_property
    def _loaded(self) -> "tuple[PreTrainedTokenizerBase, Any, str]":
        """The tokenizer, the network, and the hash of its weights."""
        name, hub = self._network.name, self._network.hub
        network, digest = pretrained(name, self._network.architecture, hub, self._weights, OPTION)
        from transformers import AutoTokenizer

        folder = self._weights or cached(name, hub, OPTION)
        try:
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        except Exception as error:  # OSError for missing files, others for damaged ones
            raise InputError(
                f"{folder}: the tokenizer of {name!r} cannot be loaded ({first_line(error)}); name the folder that "
                "transformers saved, with tokenizer.json"
            ) from None
        return tokenizer, network.requires_grad_(False), digest


def _dim_in(config: Path) -> int | None:
    """Return the size of vectors that the config of a network states; None if it states none."""
    content = read_record(config, NetworkConfig, "save the network again")
    content = content.get("text_config") or content
    dim: int | None = content.get("d_model") or content.get("hidden_size")
    return dim
