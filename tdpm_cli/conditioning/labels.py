"""Class labels."""

from collections.abc import Sequence

import torch

from tdpm_cli.config.types import Natural, Positive, Probability, RawCondition
from tdpm_cli.data.dataset import Dataset, pieces_of
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError, nearest

__all__ = ["Labels"]

LISTED_NAMES = 20  # of classes, in a message
COUNTED_TOGETHER = 10_000  # labels that are read at a time


class Labels:
    """`label` int64 [B] in 0..`classes`-1, or `classes` for "nothing".

    Training notes the `names` of the classes from the dataset, unless the preset states them, and the `counts` of their
    examples. Classes without examples are never drawn.
    """

    option = "--labels"

    def __init__(
        self, *, classes: Positive, dropout: Probability = 0.1, names: list[str] = [],  # noqa: B006
        counts: list[Natural] = [],  # noqa: B006
    ) -> None:  # fmt: skip
        if counts and (len(counts) != classes or not any(counts)):
            raise InputError(f"condition.counts has {len(counts)} numbers with the sum {sum(counts)}; expected "
                             f"condition.classes = {classes}, with examples")  # fmt: skip
        if names and len(names) != classes:
            raise InputError(f"condition.names has {len(names)} names; expected condition.classes = {classes}")
        self.classes, self.dropout, self.names, self.counts = classes, dropout, names, counts
        self.sizes = {"label": classes + 1}

    def encode(self, raw_condition: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Return the labels of the data. Raises InputError if there are none, or one beyond `classes`."""
        if "label" not in raw_condition:
            raise InputError("condition.name is 'labels', but the data have no labels; use condition.name=none")
        label = raw_condition["label"].long()
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.classes:
            raise InputError(f"condition.classes is {self.classes}, but the data have the label {int(label.max())}; "
                             "raise condition.classes")  # fmt: skip
        return {"label": label}

    def null(self, n: int) -> Cond:
        """Return the label `classes`, n times."""
        return {"label": torch.full((n,), self.classes)}

    def text_encoder(self) -> None:
        """Return None: networks receive labels as they are."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Draw labels uniformly, of the classes that have examples."""
        occupied = torch.tensor([k for k in range(self.classes) if not self._is_empty(k)])
        return {"label": occupied[noise.choice(len(occupied)).cpu()]}

    def draw_as_data(self, n: int, noise: Noise) -> RawCondition:
        """Draw labels as often as the training data have them. Raises InputError for a model that does not know."""
        if not self.counts:
            raise InputError("--labels data, but the model does not record how often its classes occur; name classes, "
                             "or leave it out to draw all classes equally often")  # fmt: skip
        ends = torch.tensor(self.counts).cumsum(0)
        return {"label": torch.searchsorted(ends, noise.choice(int(ends[-1])).cpu(), right=True)}

    def fit(self, dataset: Dataset) -> dict[str, object]:
        """Return the names of the classes. Raises InputError if the data have another number of classes."""
        names = dataset.class_names
        if names and len(names) != self.classes:
            listed = ", ".join(names[:LISTED_NAMES])
            raise InputError(f"condition.classes is {self.classes}, but the data have {len(names)} classes: {listed}; "
                             f"set condition.classes={len(names)}")  # fmt: skip
        return {"names": self.names or list(names), "counts": self._count(dataset)}

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Return n labels that repeat `texts`, numbers or names of classes. Raises InputError for any other text."""
        labels = []
        for text in texts:
            if text in self.names:
                labels.append(self.names.index(text))
            elif text.isdecimal() and int(text) < self.classes:
                labels.append(int(text))
            else:
                labels.append(-1)
            if labels[-1] >= 0 and self._is_empty(labels[-1]):
                raise InputError(f"--labels: the class {text!r} had no examples in training; name another one")
            if labels[-1] < 0:
                known = list(dict.fromkeys([*self.names, *map(str, range(self.classes))]))
                raise InputError(f"--labels: no class {text!r}{nearest(text, known)} Accepted: {', '.join(known)}.")
        return {"label": torch.tensor([labels[k % len(labels)] for k in range(n)])}

    def _is_empty(self, label: int) -> bool:
        return bool(self.counts) and not self.counts[label]

    def _count(self, dataset: Dataset) -> list[int]:
        """Return the number of examples of each class; [] for labels that `encode` rejects."""
        if "label" not in dataset.raw_condition([0]):
            return []
        counts = torch.zeros(self.classes, dtype=torch.long)
        for piece in pieces_of(len(dataset), COUNTED_TOGETHER):
            labels = dataset.raw_condition(piece)["label"].long()
            if not 0 <= int(labels.min()) <= int(labels.max()) < self.classes:
                return []
            counts += labels.bincount(minlength=self.classes)
        return counts.tolist()
