"""Embeddings of texts: computed once for each distinct text, and kept in the user's cache."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

CHUNK = 64  # texts that are embedded at a time
MOST_ASKED = 500  # texts of one query


class Embedded(NamedTuple):
    """A text's vectors: of its tokens [L, D], and of the whole [D]; and whether it was cut."""

    tokens: Tensor
    pooled: Tensor
    cut: bool


class Embeddings:
    """text → Embedded, in float16, by `encode`; kept in a database named by `identity`, what the vectors depend on.

    Several processes may use it at once. Where the cache cannot be written, the vectors stay in memory.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[Embedded]], dim: int, identity: str) -> None:
        self._encode, self._dim = encode, dim
        self._database = _open(hashlib.sha256(identity.encode()).hexdigest()[:32])

    def __call__(self, texts: Sequence[str]) -> list[Embedded]:
        """The vectors of each text."""
        found = self._read(list(dict.fromkeys(texts)))
        missing = [text for text in dict.fromkeys(texts) if text not in found]
        for start in range(0, len(missing), CHUNK):
            self._add(missing[start : start + CHUNK])
        found |= self._read(missing)
        return [found[text] for text in texts]

    def prepare(self, texts: Sequence[str]) -> Iterator[int]:
        """Embed what is not there yet; yield how many texts were seen to, time and again."""
        for start in range(0, len(texts), MOST_ASKED):
            chunk = texts[start : start + MOST_ASKED]
            known = self._read(chunk)
            missing = [text for text in chunk if text not in known]
            yield len(chunk) - len(missing)
            for k in range(0, len(missing), CHUNK):
                self._add(missing[k : k + CHUNK])
                yield len(missing[k : k + CHUNK])

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that were longer than their vectors are, and were cut."""
        return [text for text, embedded in zip(texts, self(texts), strict=True) if embedded.cut]

    def _add(self, texts: Sequence[str]) -> None:
        rows = [
            (text, int(embedded.cut), _bytes(embedded.tokens), _bytes(embedded.pooled))
            for text, embedded in zip(texts, self._encode(texts), strict=True)
        ]
        with self._database:
            self._database.executemany("INSERT OR IGNORE INTO texts VALUES (?, ?, ?, ?)", rows)

    def _read(self, texts: Sequence[str]) -> dict[str, Embedded]:
        found = {}
        for start in range(0, len(texts), MOST_ASKED):
            chunk = texts[start : start + MOST_ASKED]
            marks = ", ".join("?" * len(chunk))
            rows = self._database.execute(f"SELECT * FROM texts WHERE text IN ({marks})", chunk)
            for text, cut, tokens, pooled in rows:
                found[text] = Embedded(_tensor(tokens).view(-1, self._dim), _tensor(pooled), bool(cut))
        return found


class Vectors:
    """Texts as vectors of a frozen encoder: `context` [B, tokens, D], of their tokens, then zeros; and `pooled` [B, D].

    Every vector is brought to a mean square of 1, whichever encoder gave it; "nothing" is all zeros. `dim` is what the
    encoder's is to be; None is its own.
    """

    def __init__(self, encoder: Any, tokens: int, dim: int | None) -> None:
        self.encoder, self.tokens, self.dim = encoder, tokens, dim or encoder.dim

    def encode(self, texts: Sequence[str]) -> Cond:
        """Embed texts, each once ever."""
        cond = self.null(len(texts))
        for k, (tokens, pooled, _) in enumerate(self._embeddings(texts)):
            cond["context"][k, : len(tokens)] = _unit(tokens)
            cond["pooled"][k] = _unit(pooled)
        return cond

    def null(self, n: int) -> Cond:
        """Zeros: a text of no tokens, n times."""
        return {"context": torch.zeros(n, self.tokens, self.dim), "pooled": torch.zeros(n, self.dim)}

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts on a device; yield how many were seen to, time and again."""
        self.encoder.to(device)
        yield from self._embeddings.prepare(texts)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """Those of the texts that are longer than `tokens`."""
        return self._embeddings.cut(texts)

    def text_encoder(self) -> None:
        """There is nothing to train."""

    @cached_property
    def _embeddings(self) -> Embeddings:
        if self.encoder.dim != self.dim:
            raise InputError(f"condition.dim is {self.dim}, but the encoder gives vectors of {self.encoder.dim}: "
                             "another encoder than the model was trained with")  # fmt: skip
        identity = f"{self.encoder.identity} {self.tokens}"
        return Embeddings(lambda texts: self.encoder(texts, self.tokens), self.dim, identity)


def _unit(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().mean(-1, keepdim=True) + 1e-8).sqrt()


def _open(name: str) -> sqlite3.Connection:
    path = user_cache_path("tdpm") / "texts" / f"{name}.sqlite"
    with suppress(OSError, sqlite3.Error):  # a cache that cannot be written, or a damaged one: memory does as well
        path.parent.mkdir(parents=True, exist_ok=True)
        return _with_table(sqlite3.connect(path, timeout=60))
    return _with_table(sqlite3.connect(":memory:"))


def _with_table(database: sqlite3.Connection) -> sqlite3.Connection:
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS texts (text TEXT PRIMARY KEY, cut, tokens BLOB, pooled BLOB)")
    return database


def _bytes(vectors: Tensor) -> bytes:
    return vectors.to(torch.float16).contiguous().numpy().tobytes()


def _tensor(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, np.float16).astype(np.float32))
