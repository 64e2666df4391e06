"""A dataset that is in memory as tensors."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import content_sha256
from tdpm_cli.data.labels import numbered_names
from tdpm_cli.runtime.errors import InputError


class TensorDataset:
    """Examples raw [N, *raw_shape], with labels int64 [N] where they have classes.

    `source` names the data in messages. Raises InputError for examples of another shape than `raw_shape` (None accepts
    any), for no examples, and for labels that differ in number from the examples.
    """

    def __init__(
        self, raw: Tensor, raw_shape: Sequence[int] | None, source: str, labels: Tensor | None = None,
        class_names: Sequence[str] = (),
    ) -> None:  # fmt: skip
        if not len(raw):
            raise InputError(f"{source}: no examples found")
        if raw_shape is not None and tuple(raw.shape[1:]) != tuple(raw_shape):
            raise InputError(
                f"{source}: examples have shape {list(raw.shape[1:])}, but space.shape is {list(raw_shape)}; "
                "change space.shape, or resize the data with `tdpm data prepare`"
            )
        if labels is not None and len(labels) != len(raw):
            raise InputError(f"{source}: {len(labels):,} labels for {len(raw):,} examples; expected one for each")
        self._raw, self._labels = raw, None if labels is None else labels.long()
        highest = -1 if self._labels is None else int(self._labels.max())
        self.class_names = list(class_names) if highest < len(class_names) else numbered_names(highest, source)
        self.shape = tuple(raw.shape[1:])
        self.prepared = "as stored"
        self.notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._raw)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        return self._raw[torch.as_tensor(indices)], self.raw_condition(indices)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the labels, if any."""
        return {} if self._labels is None else {"label": self._labels[torch.as_tensor(indices)]}

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""
        return self.sha256()

    def sha256(self) -> str:
        """Return the SHA-256 of all examples and labels."""
        return content_sha256(self)
