"""DINOv2 features, by a network trained without labels; their FD agrees with human judgement better than FID does.

Network: Oquab et al. 2023. As features: Stein et al. 2023, with their code layer6ai-labs/dgm-eval.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.checkpoints.pretrained import pretrained

__all__ = ["Dinov2"]

HUB = "facebook/dinov2-large"  # ViT-L/14, the choice of Stein et al.
SIDE = 224  # as in Stein et al.; the network's config names 518, the size at the end of its training
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0..1


class Dinov2:
    """Images uint8 [B, C, H, W] → float32 [B, D]: the CLS token after the last layer norm, D = 1024 for "large".

    Images are resized to 224² (bicubic, antialiased); grey images are repeated to RGB. `weights` is a folder saved by
    transformers; None means HUB, from Hugging Face's cache or downloaded to it. Values are close to dgm-eval's but not
    equal: dgm-eval rounds resized images to uint8, and its network interpolates positions with an offset of 0.1.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        self.network, digest = pretrained(
            "dinov2", "Dinov2Model", HUB, weights, "--features dinov2:PATH or --weights PATH"
        )
        self.network.to(device)
        self.device = device
        self.protocol = {
            "name": "dinov2",
            "resize": f"{SIDE} × {SIDE}, bicubic, antialiased (torch), clamped to 0..255",
            "weights_sha256": digest,
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of one batch."""
        x = standardised(images.to(self.device), SIDE, MEAN, STD)
        features: Tensor = self.network(pixel_values=x).last_hidden_state[:, 0]
        return features


def standardised(images: Tensor, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """Resize uint8 [B, C, H, W] to float32 [B, 3, side, side] and standardise by `mean`, `std` of RGB in 0..1."""
    x = images.float().expand(-1, 3, -1, -1)
    x = torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)
    return (x / 255 - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)
