"""Random numbers for sampling: image k depends on (seed, k) alone, at any batch size and in any order."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

_NOISE, _CHOICE = 0, 1  # separate streams, so that choosing a label leaves the noise as it was


class Noise:
    """One independent random stream for each image of a batch, keyed by (seed, index).

    `seed` and `indices` are at least 0. Philox counts instead of carrying state along (Salmon et al. 2011),
    so no image's numbers depend on another's.
    """

    def __init__(self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._normal = [self._stream(seed, k, _NOISE) for k in indices]
        self._choice = [self._stream(seed, k, _CHOICE) for k in indices]

    @staticmethod
    def _stream(seed: int, index: int, stream: int) -> np.random.Generator:
        key = np.array([seed, index], dtype=np.uint64)
        return np.random.Generator(np.random.Philox(key=key, counter=[0, 0, 0, stream]))

    def normal(self, shape: Sequence[int]) -> Tensor:
        """The next standard normal [B, *shape] in float32."""
        rows = np.stack([g.standard_normal(tuple(shape), dtype=np.float32) for g in self._normal])
        return torch.from_numpy(rows).to(self.device)

    def choice(self, count: int) -> Tensor:
        """The next integer in 0..count-1 of each image: int64 [B]."""
        return torch.tensor([int(g.integers(count)) for g in self._choice], device=self.device)
