"""Data that lie in memory whole; and the hash of any data's content."""

import hashlib
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.runtime.errors import InputError

MOST_CLASSES = 1 << 20


class Arrays:
    """A data set of tensors: raw [N, *raw_shape], and labels int64 [N] where they have classes.

    `text` names the source in messages. Raises InputError where the space has another `raw_shape` (None fits all),
    where there is nothing, or where labels and examples differ in number.
    """

    def __init__(
        self, raw: Tensor, raw_shape: Sequence[int] | None, text: str, labels: Tensor | None = None,
        names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if not len(raw):
            raise InputError(f"{text}: it holds no examples")
        if raw_shape is not None and tuple(raw.shape[1:]) != tuple(raw_shape):
            raise InputError(
                f"{text}: examples of {list(raw.shape[1:])}, but space.shape is {list(raw_shape)}; "
                "set space.shape to theirs, or bring them to yours with `tdpm data prepare`"
            )
        if labels is not None and len(labels) != len(raw):
            raise InputError(f"{text}: {len(labels):,} labels for {len(raw):,} examples")
        self._raw, self._labels = raw, None if labels is None else labels.long()
        self.shape = tuple(raw.shape[1:])
        highest = -1 if self._labels is None else int(self._labels.max())
        self.names = list(names) if highest < len(names) else numbered(highest, text)

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = torch.as_tensor(indices)
        return self._raw[chosen], {} if self._labels is None else {"label": self._labels[chosen]}


def conditions_of(data: Any, indices: Sequence[int]) -> dict[str, Any]:
    """Labels and captions of examples, where there are any; files are not decoded for them."""
    source = getattr(data, "files", data)
    found: dict[str, Any] = source.conditions_of(indices) if hasattr(source, "conditions_of") else data[indices][1]
    return found


def numbered(highest: int, text: str) -> list[str]:
    """Names of classes that have none: their numbers. Raises InputError for more than anyone has."""
    if highest >= MOST_CLASSES:
        raise InputError(f"{text}: a label is {highest:,}; at most {MOST_CLASSES:,} classes are accepted")
    return [str(k) for k in range(highest + 1)]


def content_of(data: Any) -> str:
    """SHA-256 of a data set's examples and their classes."""
    if hasattr(data, "sha256"):
        return str(data.sha256())
    digest = hashlib.sha256(str(data.names).encode())
    for start in range(0, len(data), 1000):
        raw, cond = data[range(start, min(start + 1000, len(data)))]
        digest.update(f"{raw.dtype} {raw.shape} {sorted(cond)}".encode())
        for value in (raw, *(cond[key] for key in sorted(cond))):
            digest.update(value.contiguous().numpy().tobytes() if isinstance(value, Tensor) else repr(value).encode())
    return digest.hexdigest()


def fingerprint_of(data: Any) -> str:
    """What tells that data have changed, at little cost: their own fingerprint, or the hash of their content."""
    return str(data.fingerprint()) if hasattr(data, "fingerprint") else content_of(data)
