"""Handwritten digits: 1,797 grey images of 8×8 in 10 classes, included in scikit-learn."""

from collections.abc import Sequence
from pathlib import Path

import torch

from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError

__all__ = ["digits"]


def digits(path: Path | None, raw_shape: Sequence[int]) -> TensorDataset:
    """uint8 [1, 8, 8] and labels 0..9 (Alpaydin and Kaynak, UCI 1998: the test set)."""
    if path is not None:
        raise InputError(
            f"--data {path}: the dataset 'digits' is part of scikit-learn and reads no path; remove --data, or name "
            "images: a folder, a zip, an .npz, …"
        )
    try:
        from sklearn.datasets import load_digits
    except ImportError:
        raise InputError(
            "the dataset 'digits' needs scikit-learn; install it with: pip install 'tdpm-cli[digits]'"
        ) from None
    loaded = load_digits()
    images = torch.from_numpy(loaded.images / 16 * 255).round().byte().unsqueeze(1)  # 0..16 → 0..255
    labels = torch.from_numpy(loaded.target)
    return TensorDataset(images, raw_shape, "the dataset 'digits'", labels, [str(digit) for digit in range(10)])
