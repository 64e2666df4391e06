"""Synthetic points in the plane, drawn once from a seed."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config.types import Natural, Positive, RawCondition
from tdpm_cli.data.dataset import content_sha256
from tdpm_cli.runtime.errors import InputError

__all__ = ["Points"]


class Points:
    """`count` points float32 [2]; `kind` names the distribution. The label is the component or arm."""

    def __init__(
        self,
        path: Path | None,
        raw_shape: Sequence[int],
        *,
        kind: Literal["mixture", "swissroll", "gaussians25"],
        count: Positive = 50_000,
        seed: Natural = 0,
    ) -> None:
        if path is not None:
            raise InputError(f"--data {path}: the data 'points' are drawn, not read; leave --data out")
        if tuple(raw_shape) != (2,):
            raise InputError(f"the data 'points' have 2 coordinates, but the space has shape {list(raw_shape)}")
        rng = np.random.default_rng([seed, 2])
        points, labels = KINDS[kind](rng, count)
        self._points = torch.from_numpy(points.astype(np.float32))
        self._labels = torch.from_numpy(labels)
        self.shape, self.prepared = (2,), "as drawn"
        self.class_names: Sequence[str] = ()
        self.notes: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self._points)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, RawCondition]:
        return self._points[torch.as_tensor(indices)], self.raw_condition(indices)

    def raw_condition(self, indices: Sequence[int]) -> RawCondition:
        """Return the component or arm of each point."""
        return {"label": self._labels[torch.as_tensor(indices)]}

    def fingerprint(self) -> str:
        """Return the SHA-256 of the content."""
        return self.sha256()

    def sha256(self) -> str:
        """Return the SHA-256 of all points and labels."""
        return content_sha256(self)


Draw = tuple[np.ndarray, np.ndarray]


def mixture(rng: np.random.Generator, count: int) -> Draw:
    """Five unequal Gaussians around (1.3, 0.7): none is centred or round, and no two are equal."""
    weights = np.array([0.34, 0.26, 0.2, 0.13, 0.07])
    centres = np.array([[0.6, 0.2], [2.0, 0.3], [1.3, 1.7], [0.1, 1.4], [2.3, 1.5]])
    axes = np.array([[0.30, 0.10], [0.12, 0.12], [0.40, 0.15], [0.08, 0.25], [0.06, 0.06]])
    turns = np.array([0.5, 0.0, -0.4, 0.2, 0.0])
    label = rng.choice(5, count, p=weights)
    local = rng.standard_normal((count, 2)) * axes[label]
    cos, sin = np.cos(turns[label]), np.sin(turns[label])
    turned = np.stack([cos * local[:, 0] - sin * local[:, 1], sin * local[:, 0] + cos * local[:, 1]], 1)
    return centres[label] + turned, label


def swissroll(rng: np.random.Generator, count: int) -> Draw:
    """A spiral of one and a half turns and radius 2, blurred by 0.04."""
    angle = 1.5 * np.pi * (1 + 2 * rng.random(count))
    radius = angle / (4.5 * np.pi) * 2
    spiral = np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1)
    return spiral + 0.04 * rng.standard_normal((count, 2)), np.zeros(count, dtype=np.int64)


def gaussians25(rng: np.random.Generator, count: int) -> Draw:
    """A grid of 5 × 5 Gaussians, one unit apart, standard deviation 0.05."""
    label = rng.integers(25, size=count)
    centres = np.stack([label // 5 - 2, label % 5 - 2], 1)
    return centres + 0.05 * rng.standard_normal((count, 2)), label


KINDS: dict[str, Callable[[np.random.Generator, int], Draw]] = {
    "mixture": mixture,
    "swissroll": swissroll,
    "gaussians25": gaussians25,
}
