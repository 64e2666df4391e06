"""Images in an .npz as ADM's tools write them: `arr_0` uint8 [N, H, W, C], and labels `arr_1` [N] where given."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.npz import read, told

__all__ = ["npz"]


def npz(path: Path | None, raw_shape: Sequence[int] | None = None) -> TensorDataset:
    """uint8 [C, H, W] of `arr_0`, or float32 [dim] where it holds points; all of it in memory.

    Raises InputError for a file that is damaged, holds other arrays, or images that are not of the space's shape.
    """
    if path is None:
        raise InputError("no images: give an .npz with --data PATH")
    arrays = read(path, ["arr_0", "arr_1"])
    if "arr_0" not in arrays:
        found = ", ".join(told(path)) or "nothing"
        raise InputError(f"{path}: it holds {found}; accepted: images as `arr_0` [N, H, W, C]")
    x = torch.from_numpy(arrays["arr_0"])
    is_image = x.ndim == 4 and x.dtype == torch.uint8 and x.shape[-1] in (1, 3)
    if not is_image and not (x.ndim == 2 and x.is_floating_point()):
        raise InputError(
            f"{path}: `arr_0` is {x.dtype} {list(x.shape)}; accepted: uint8 [N, H, W, 1 or 3], or points float [N, dim]"
        )
    label = arrays.get("arr_1")
    if label is not None and (label.dtype.kind not in "iu" or label.shape != (len(x),)):
        raise InputError(
            f"{path}: `arr_1` is {label.dtype} {list(label.shape)}; accepted: a whole number for each of the "
            f"{len(x)} examples"
        )
    raw = x.permute(0, 3, 1, 2) if is_image else x.float()
    return TensorDataset(raw, raw_shape, str(path), None if label is None else torch.from_numpy(label.astype(np.int64)))


def recognises(path: Path) -> bool:
    """Whether `path` is such a file, by its name."""
    return path.suffix.lower() == ".npz"
