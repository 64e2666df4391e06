"""Features of your own: a module that was saved as TorchScript (https://docs.pytorch.org/docs/stable/jit.html)."""

from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.models.torchscript_store import read
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256

__all__ = ["TorchScript"]


class TorchScript:
    """Images uint8 [B, C, H, W] → float32 [B, D]: what the module returns for [B, 3, H, W], axes after B flattened.

    `weights`, the module's file, is required. The module resizes and scales images itself, of whatever size the
    scored ones have; grey ones are repeated to RGB. Raises InputError for a module that does not fit.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        if weights is None:
            raise InputError(
                "the features 'torchscript' are a file of yours: name it with --features torchscript:PATH "
                "or --weights PATH"
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
        """Features of one batch."""
        x = images.to(self.device).expand(-1, 3, -1, -1).contiguous()
        try:
            features = self.network(x)
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # what the module raises arrives as one of several classes; its own words come last
            reason = (str(error).strip() or type(error).__name__).splitlines()[-1]
            raise InputError(f"{self.path}: the module failed on images uint8 {list(x.shape)}: {reason}") from None
        accepted = f"accepted: floating point [{len(x)}, D] for {len(x)} images"
        if not isinstance(features, Tensor):
            raise InputError(f"{self.path}: the module returned a {type(features).__name__}; {accepted}")
        if not features.is_floating_point() or features.ndim < 2 or len(features) != len(x):
            found = f"{str(features.dtype).removeprefix('torch.')} {list(features.shape)}"
            raise InputError(f"{self.path}: the module returned {found}; {accepted}")
        return features.flatten(1).float()
