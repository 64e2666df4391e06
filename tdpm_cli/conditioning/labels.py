"""Class labels."""

from collections.abc import Sequence

import torch

from tdpm_cli.config.types import Positive, Probability, RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError, nearest

__all__ = ["Labels"]

LISTED_NAMES = 20  # of classes, in a message


class Labels:
    """`label` int64 [B] in 0..`classes`-1, or `classes` for "nothing".

    Training notes the `names` of the classes from the dataset, unless the preset states them.
    """

    option = "--labels"

    def __init__(self, *, classes: Positive, dropout: Probability = 0.1, names: list[str] = []) -> None:  # noqa: B006
        if names and len(names) != classes:
            raise InputError(f"condition.names has {len(names)} names; expected condition.classes = {classes}")
        self.classes, self.dropout, self.names = classes, dropout, names
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
        """Draw labels uniformly."""
        return {"label": noise.choice(self.classes)}

    def fit(self, dataset: Dataset) -> dict[str, object]:
        """Return the names of the classes. Raises InputError if the data have another number of classes."""
        names = dataset.class_names
        if names and len(names) != self.classes:
            listed = ", ".join(names[:LISTED_NAMES])
            raise InputError(f"condition.classes is {self.classes}, but the data have {len(names)} classes: {listed}; "
                             f"set condition.classes={len(names)}")  # fmt: skip
        return {"names": self.names or list(names)}

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Return n labels that repeat `texts`, numbers or names of classes. Raises InputError for any other text."""
        labels = []
        for text in texts:
            if text in self.names:
                labels.append(self.names.index(text))
            elif text.isdecimal() and int(text) < self.classes:
                labels.append(int(text))
            else:
                known = list(dict.fromkeys([*self.names, *map(str, range(self.classes))]))
                raise InputError(f"--labels: no class {text!r}{nearest(text, known)} Accepted: {', '.join(known)}.")
        return {"label": torch.tensor([labels[k % len(labels)] for k in range(n)])}
