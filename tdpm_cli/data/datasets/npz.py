"""Images in an .npz as ADM's tools write it: `arr_0` uint8 [N, H, W, C], and optional labels `arr_1` [N]."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.npz import read, read_headers

__all__ = ["npz"]


def npz(path: Path | None, raw_shape: Sequence[int] | None = None) -> TensorDataset:
    """uint8 [C, H, W] of `arr_0`, or float32 [dim] if it contains points; all in memory.

    Raises InputError for a file that is damaged, contains other arrays, or images of another shape than the space's.
    """
    if path is None:
        raise InputError("no images; name an .npz with --data PATH")
    arrays = read(path, ["arr_0", "arr_1"])
    if "arr_0" not in arrays:
        names = ", ".join(read_headers(path)) or "nothing"
        raise InputError(f"{path}: found {names}; expected images as `arr_0` [N, H, W, C]")
    x = torch.from_numpy(arrays["arr_0"])
    is_image = x.ndim == 4 and x.dtype == torch.uint8 and x.shape[-1] in (1, 3)
    if not is_image and not (x.ndim == 2 and x.is_floating_point()):
        raise InputError(
            f"{path}: `arr_0` is {x.dtype} {list(x.shape)}; expected uint8 [N, H, W, 1 or 3], or points float [N, dim]"
        )
    label = arrays.get("arr_1")
    if label is not None and (label.dtype.kind not in "iu" or label.shape != (len(x),)):
        raise InputError(f"{path}: `arr_1` is {label.dtype} {list(label.shape)}; expected whole numbers [{len(x)}]")
    raw = x.permute(0, 3, 1, 2) if is_image else x.float()
    return TensorDataset(raw, raw_shape, str(path), None if label is None else torch.from_numpy(label.astype(np.int64)))


def recognises(path: Path) -> bool:
    """Return whether `path` has the suffix .npz."""
    return path.suffix.lower() == ".npz"
