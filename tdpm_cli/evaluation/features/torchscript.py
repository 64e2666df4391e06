"""Your own features, by a module saved as TorchScript (https://docs.pytorch.org/docs/stable/jit.html)."""

from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.models.torchscript_programs import read
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256

__all__ = ["TorchScript"]


class TorchScript:
    """Images uint8 [B, C, H, W] → float32 [B, D]: the module's output for [B, 3, H, W], axes after B flattened.

    `weights`, the module's file, is required. The module resizes and scales images of any size; grey images are
    repeated to RGB. Raises InputError for a module that fails or returns anything else.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        if weights is None:
            raise InputError(
                "--features torchscript: no file; name yours with --features torchscript:PATH or --weights PATH"
            )
        self.network = read(weights, device)
        self.path, self.device = weights, device
        self.protocol = {
            "name": "torchscript",
            "resize": "by the module",
            "weights_sha256": sha256(weights),
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of one batch."""
        x = images.to(self.device).expand(-1, 3, -1, -1).contiguous()
        try:
            features = self.network(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # of one of several classes; the last line is the module's own message
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(f"{self.path}: the module failed on images uint8 {list(x.shape)}: {reason}") from None
        accepted = f"accepted: floating point [{len(x)}, D] for {len(x)} images"
        if not isinstance(features, Tensor):
            raise InputError(f"{self.path}: the module returned a {type(features).__name__}; {accepted}")
        if not features.is_floating_point() or features.ndim < 2 or len(features) != len(x):
            returned = f"{str(features.dtype).removeprefix('torch.')} {list(features.shape)}"
            raise InputError(f"{self.path}: the module returned {returned}; {accepted}")
        return features.flatten(1).float()
