"""Embeddings of captions: each distinct text is embedded once, and kept in the user's cache."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.caches import cache_folder
from tdpm_cli.runtime.errors import InputError

EMBEDDED_TOGETHER = 64  # texts in a batch of the encoder
QUERIED_TOGETHER = 500  # texts in a query of the database
BUSY_SECONDS = 60  # that a process waits for another one to write


class Embedding(NamedTuple):
    """The vectors of a text: of its tokens [L, D], and of the whole text [D]; and whether the text was truncated."""

    tokens: Tensor
    pooled: Tensor
    truncated: bool


class FrozenEncoder(Protocol):
    """A text encoder that is not trained: texts and a number of tokens → embeddings."""

    @property
    def dim(self) -> int:
        """D."""

    @property
    def identity(self) -> str:
        """What its vectors depend on: its name, and the hash of its weights."""

    def __call__(self, texts: Sequence[str], tokens: int) -> list[Embedding]: ...

    def to(self, device: torch.device) -> None:
        """Compute on this device from now on."""


class Embeddings:
    """Embeds texts with `encode`, in float16, and keeps the vectors in a database named by `identity`.

    Several processes may use it at once. If the database is damaged or cannot be written, the vectors stay in memory.
    """

    def __init__(self, encode: Callable[[Sequence[str]], list[Embedding]], dim: int, identity: str) -> None:
        self._encode, self._dim = encode, dim
        self._path = cache_folder("texts") / f"{hashlib.sha256(identity.encode()).hexdigest()[:32]}.sqlite"
        self._database = self._open()

    def __call__(self, texts: Sequence[str]) -> list[Embedding]:
        """Return the embedding of each text."""
        distinct = list(dict.fromkeys(texts))
        known = self._read(distinct)
        missing = [text for text in distinct if text not in known]
        for start in range(0, len(missing), EMBEDDED_TOGETHER):
            known |= self._add(missing[start : start + EMBEDDED_TOGETHER])
        return [known[text] for text in texts]

    def prepare(self, texts: Sequence[str]) -> Iterator[int]:
        """Embed the texts that are not known yet; yield the number of texts processed since the last yield."""
        for start in range(0, len(texts), QUERIED_TOGETHER):
            queried = texts[start : start + QUERIED_TOGETHER]
            known = self._read(queried)
            missing = [text for text in queried if text not in known]
            yield len(queried) - len(missing)
            for k in range(0, len(missing), EMBEDDED_TOGETHER):
                self._add(missing[k : k + EMBEDDED_TOGETHER])
                yield len(missing[k : k + EMBEDDED_TOGETHER])

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that were truncated."""
        return [text for text, embedding in zip(texts, self(texts), strict=True) if embedding.truncated]

    def _add(self, texts: Sequence[str]) -> dict[str, Embedding]:
        """Embed texts and keep their vectors; return them as the database returns them, in float16."""
        rows = [
            (text, int(embedding.truncated), _to_bytes(embedding.tokens), _to_bytes(embedding.pooled))
            for text, embedding in zip(texts, self._encode(texts), strict=True)
        ]
        for _ in range(2):  # the second time in memory
            try:
                with self._database:
                    self._database.executemany("INSERT OR REPLACE INTO texts VALUES (?, ?, ?, ?)", rows)
                break
            except sqlite3.Error as error:
                self._leave(error)
        return {row[0]: self._embedding(*row[1:]) for row in rows}

    def _read(self, texts: Sequence[str]) -> dict[str, Embedding]:
        """Return the embeddings that the database contains; damaged ones are left out."""
        embeddings = dict[str, Embedding]()
        for start in range(0, len(texts), QUERIED_TOGETHER):
            queried = texts[start : start + QUERIED_TOGETHER]
            marks = ", ".join("?" * len(queried))
            try:
                rows = self._database.execute(f"SELECT * FROM texts WHERE text IN ({marks})", queried).fetchall()
            except sqlite3.Error as error:
                self._leave(error)
                return embeddings
            for text, *columns in rows:
                with suppress(TypeError, ValueError, RuntimeError):
                    embeddings[text] = self._embedding(*columns)
        return embeddings

    def _embedding(self, truncated: int, tokens: bytes, pooled: bytes) -> Embedding:
        """Read an embedding from its columns. Raises TypeError, ValueError or RuntimeError for damaged ones."""
        return Embedding(_to_tensor(tokens).view(-1, self._dim), _to_tensor(pooled).view(self._dim), bool(truncated))

    def _open(self) -> sqlite3.Connection:
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            if self._path.exists() and not self._path.is_file():
                return _in_memory()
            return _with_table(sqlite3.connect(self._path, timeout=BUSY_SECONDS))
        except (OSError, sqlite3.Error) as error:
            self._discard(error)
        return _in_memory()

    def _leave(self, error: sqlite3.Error) -> None:
        """Continue in memory. A damaged database is removed, so that the next command begins another."""
        self._database.close()
        self._discard(error)
        self._database = _in_memory()

    def _discard(self, error: OSError | sqlite3.Error) -> None:
        # OperationalError: a database that is locked or cannot be written, which may be sound.
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(error, sqlite3.OperationalError):
            with suppress(OSError):
                self._path.unlink()


class CachedVectors:
    """Captions → `context` [B, tokens, D], the vectors of their tokens and then zeros, and `pooled` [B, D].

    Every vector is scaled to a mean square of 1, whatever the encoder; "nothing" is all zeros. `dim` is the D that the
    model was trained with; None is the encoder's own.
    """

    def __init__(self, encoder: FrozenEncoder, tokens: int, dim: int | None) -> None:
        self.encoder, self.tokens, self.dim = encoder, tokens, dim or encoder.dim

    def encode(self, texts: Sequence[str]) -> Cond:
        """Embed texts; those in the cache are read from it."""
        cond = self.null(len(texts))
        for k, (tokens, pooled, _) in enumerate(self._embeddings(texts)):
            cond["context"][k, : len(tokens)] = _normalised(tokens)
            cond["pooled"][k] = _normalised(pooled)
        return cond

    def null(self, n: int) -> Cond:
        """Return zeros, n times: a text without tokens."""
        return {"context": torch.zeros(n, self.tokens, self.dim), "pooled": torch.zeros(n, self.dim)}

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts on a device; yield the number of texts processed since the last yield."""
        self.encoder.to(device)
        yield from self._embeddings.prepare(texts)

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are longer than `tokens`."""
        return self._embeddings.truncated(texts)

    def text_encoder(self) -> None:
        """Return None: nothing is trained with the model."""

    @cached_property
    def _embeddings(self) -> Embeddings:
        if self.encoder.dim != self.dim:
            raise InputError(f"condition.dim is {self.dim}, but the text encoder's vectors have {self.encoder.dim} "
                             "values; use the text encoder that the model was trained with")  # fmt: skip
        identity = f"{self.encoder.identity} {self.tokens}"
        return Embeddings(lambda texts: self.encoder(texts, self.tokens), self.dim, identity)


def _normalised(vectors: Tensor) -> Tensor:
    return vectors / (vectors.square().mean(-1, keepdim=True) + 1e-8).sqrt()


def _in_memory() -> sqlite3.Connection:
    return _with_table(sqlite3.connect(":memory:"))


def _with_table(database: sqlite3.Connection) -> sqlite3.Connection:
    with database:
        database.execute("CREATE TABLE IF NOT EXISTS texts (text TEXT PRIMARY KEY, cut, tokens BLOB, pooled BLOB)")
    return database


def _to_bytes(vectors: Tensor) -> bytes:
    return vectors.to(torch.float16).contiguous().numpy().tobytes()


def _to_tensor(blob: bytes) -> Tensor:
    return torch.from_numpy(np.frombuffer(blob, np.float16).astype(np.float32))
