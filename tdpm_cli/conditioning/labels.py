"""Class labels."""

from collections.abc import Sequence
from typing import Any

import torch

from tdpm_cli.config.types import Positive, Probability, RawCondition
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError, nearest

__all__ = ["Labels"]


class Labels:
    """`label` int64 [B] in 0..`classes`-1, and `classes` itself for "nothing".

    `names` of the classes are taken from the data set where the preset gives none.
    """

    option = "--labels"

    def __init__(self, *, classes: Positive, dropout: Probability = 0.1, names: list[str] = []) -> None:  # noqa: B006
        if names and len(names) != classes:
            raise InputError(f"condition.names has {len(names)} names for condition.classes = {classes}")
        self.classes, self.dropout, self.names = classes, dropout, names
        self.sizes = {"label": classes + 1}

    def encode(self, given: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Take the data set's labels. Raises InputError where it has none, or one beyond `classes`."""
        if "label" not in given:
            raise InputError("condition.name is 'labels', but the data have no labels; use condition.name=none")
        label = given["label"].long()
        if len(label) and not 0 <= int(label.min()) <= int(label.max()) < self.classes:
            raise InputError(f"condition.classes is {self.classes}, but the data have label {int(label.max())}")
        return {"label": label}

    def null(self, n: int) -> Cond:
        """The label `classes`, n times."""
        return {"label": torch.full((n,), self.classes)}

    def text_encoder(self) -> None:
        """Networks take it as it is."""

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Labels drawn uniformly."""
        return {"label": noise.choice(self.classes)}

    def fit(self, data: Any) -> dict[str, Any]:
        """Take over the names of the data's classes. Raises InputError where their number differs."""
        names = data.class_names
        if names and len(names) != self.classes:
            listed = ", ".join(names[:20])
            raise InputError(f"condition.classes is {self.classes}, but the data have {len(names)} classes: {listed}")
        return {"names": self.names or list(names)}

    def parse(self, words: Sequence[str], n: int) -> RawCondition:
        """n labels that go round through words, each a class's number or name. Raises InputError for others."""
        chosen = []
        for word in words:
            if word in self.names:
                chosen.append(self.names.index(word))
            elif word.isdecimal() and int(word) < self.classes:
                chosen.append(int(word))
            else:
                known = [*self.names, *map(str, range(self.classes))]
                raise InputError(f"label {word!r} is no class{nearest(word, known)} Accepted: {', '.join(known)}.")
        return {"label": torch.tensor([chosen[k % len(chosen)] for k in range(n)])}
