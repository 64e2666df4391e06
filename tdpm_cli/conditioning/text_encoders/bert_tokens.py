"""A transformer over BERT's word pieces that is trained with the model, as latent diffusion's was (Rombach et al. 2022,
appendix D.2; Devlin et al. 2019)."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from tdpm_cli.conditioning.text_encoders.minilm import tokenizer
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["BertTokens"]

LAYERS, HEAD = 4, 64  # of the transformer, and channels of each of its heads


class BertTokens:
    """Texts → numbers of word pieces (uncased BERT's, of MiniLM's package); its network makes vectors of them."""

    dim, limit = 256, 512

    def __init__(self, weights: Path | None = None) -> None:
        if weights is not None:
            raise InputError("condition.weights: the encoder 'bert-tokens' is trained with the model; leave it out")

    def words(self, tokens: int, dim: int | None) -> "Pieces":
        """As `Vectors`; `dim` is for the user to choose."""
        return Pieces(tokens, dim or self.dim)


class Pieces:
    """`ids` int64 [B, tokens], the marks of both ends included, then padding. "Nothing" is the empty text."""

    def __init__(self, tokens: int, dim: int) -> None:
        if dim % HEAD:
            raise InputError(f"condition.dim is {dim}: for the encoder 'bert-tokens' it must divide by {HEAD}")
        self.tokens, self.dim = tokens, dim

    def encode(self, texts: Sequence[str]) -> Cond:
        """Split texts, and cut them."""
        split = tokenizer()
        split.enable_truncation(self.tokens)
        ids = torch.zeros(len(texts), self.tokens, dtype=torch.long)  # 0 is BERT's [PAD]
        for row, encoding in zip(ids, split.encode_batch(list(texts)), strict=True):
            row[: len(encoding.ids)] = torch.tensor(encoding.ids)
        return {"ids": ids}

    def null(self, n: int) -> Cond:
        """The empty text, n times."""
        return {"ids": self.encode([""])["ids"].expand(n, -1)}

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Nothing is to be done beforehand."""
        yield len(texts)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than `tokens`."""
        split = tokenizer()
        split.no_truncation()
        encodings = split.encode_batch(list(texts))
        return [text for text, encoding in zip(texts, encodings, strict=True) if len(encoding.ids) > self.tokens]

    def text_encoder(self) -> nn.Module:
        """The network, with weights drawn at random."""
        return Reader(tokenizer().get_vocab_size(), self.dim, self.tokens)


class Reader(nn.Module):
    """ids [B, L] → `context` [B, L, D], the last layer, padding's too; and `pooled` [B, D], their mean without it."""

    def __init__(self, vocabulary: int, dim: int, tokens: int) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        config = BertConfig(
            vocab_size=vocabulary, hidden_size=dim, num_hidden_layers=LAYERS, num_attention_heads=dim // HEAD,
            intermediate_size=4 * dim, max_position_embeddings=tokens, type_vocab_size=1,
            hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
        )  # fmt: skip
        self.network = BertModel(config, add_pooling_layer=False)

    def forward(self, ids: Tensor, **others: Tensor) -> Cond:
        """What networks take of texts, and of other conditions as they are."""
        context = self.network(input_ids=ids).last_hidden_state
        words = (ids != 0)[..., None]
        return {**others, "context": context, "pooled": (context * words).sum(1) / words.sum(1)}
