"""A transformer over BERT's word pieces, trained with the model, as in latent diffusion (Rombach et al. 2022)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tdpm_cli.conditioning.text_encoders.minilm import tokenizer
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["BertTokens"]

LAYERS, HEAD_CHANNELS = 4, 64  # of the transformer, and of each of its heads


class BertTokens:
    """Texts → numbers of word pieces of uncased BERT, from MiniLM's package; a network that learns embeds them.

    As in latent diffusion (Rombach et al. 2022, appendix D.2), with BERT's tokenizer (Devlin et al. 2019).
    """

    dim, limit = 256, 512

    def __init__(self, weights: Path | None = None) -> None:
        if weights is not None:
            raise InputError("condition.weights: the text encoder 'bert-tokens' is trained with the model; remove "
                             "this key")  # fmt: skip

    def vectors(self, tokens: int, dim: int | None) -> "WordPieces":
        """Return what the condition `text` encodes captions with; `dim` may be chosen."""
        return WordPieces(tokens, dim or self.dim)


class WordPieces:
    """`ids` int64 [B, tokens], with the markers of both ends, then padding. "Nothing" is the empty text."""

    def __init__(self, tokens: int, dim: int) -> None:
        if dim % HEAD_CHANNELS:
            raise InputError(
                f"condition.dim is {dim}; for the text encoder 'bert-tokens' use a multiple of {HEAD_CHANNELS}"
            )
        self.tokens, self.dim = tokens, dim

    def encode(self, texts: Sequence[str]) -> Cond:
        """Split texts into word pieces, and truncate them."""
        splitter = tokenizer()
        splitter.enable_truncation(self.tokens)
        ids = torch.zeros(len(texts), self.tokens, dtype=torch.long)  # 0 is BERT's [PAD]
        for row, encoding in zip(ids, splitter.encode_batch(list(texts)), strict=True):
            row[: len(encoding.ids)] = torch.tensor(encoding.ids)
        return {"ids": ids}

    def null(self, n: int) -> Cond:
        """Return the empty text, n times."""
        return {"ids": self.encode([""])["ids"].expand(n, -1)}

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Do nothing: the network embeds texts in every step."""
        yield len(texts)

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are longer than `tokens`."""
        splitter = tokenizer()
        splitter.no_truncation()
        encodings = splitter.encode_batch(list(texts))
        return [text for text, encoding in zip(texts, encodings, strict=True) if len(encoding.ids) > self.tokens]

    def text_encoder(self) -> nn.Module:
        """Return the network, with random weights."""
        return WordPieceNetwork(tokenizer().get_vocab_size(), self.dim, self.tokens)


class WordPieceNetwork(nn.Module):
    """ids [B, L] → `context` [B, L, D], the last layer with padding, and `pooled` [B, D], its mean without padding."""

    def __init__(self, vocabulary: int, dim: int, tokens: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary, hidden_size=dim, num_hidden_layers=LAYERS, num_attention_heads=dim // HEAD_CHANNELS,
            intermediate_size=4 * dim, max_position_embeddings=tokens, type_vocab_size=1,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.network = BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor, **others: Tensor) -> Cond:
        """Embed texts; other tensors of the condition pass through."""
        context = self.network(input_ids=ids).last_hidden_state
        is_word = (ids != 0)[..., None]
        return {**others, "context": context, "pooled": (context * is_word).sum(1) / is_word.sum(1)}
