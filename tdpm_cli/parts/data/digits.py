"""Handwritten digits: 1,797 grey images of 8×8 in 10 classes, inside scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.errors import InputError

__all__ = ["Digits"]


class Digits:
    """uint8 [1, 8, 8] and labels 0..9 (Alpaydin and Kaynak, UCI 1998: the test set)."""

    def __init__(self, path: Path | None, raw_shape: Sequence[int]) -> None:
        if path is not None:
            raise InputError(f"--data {path}: the data 'digits' come with scikit-learn; leave --data out")
        if tuple(raw_shape) != (1, 8, 8):
            raise InputError(f"space.shape is {list(raw_shape)}, but the data 'digits' are [1, 8, 8]")
        try:
            from sklearn.datasets import load_digits
        except ImportError:
            raise InputError(
                "the data 'digits' need scikit-learn; install it with: pip install 'tdpm-cli[digits]'"
            ) from None
        digits = load_digits()
        self._images = torch.from_numpy(digits.images / 16 * 255).round().byte().unsqueeze(1)  # 0..16 → 0..255
        self._labels = torch.from_numpy(digits.target).long()
        self.names = [str(digit) for digit in range(10)]

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        chosen = torch.as_tensor(indices)
        return self._images[chosen], {"label": self._labels[chosen]}
