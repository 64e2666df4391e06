"""CLIP's image embeddings: of a network that learned to match images and captions (Radford et al. 2021)."""

from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.parts.features.dinov2 import pretrained, standardised

__all__ = ["Clip"]

HUB = "openai/clip-vit-large-patch14"
# Of RGB in 0..1, from the preprocessing in openai/CLIP.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Clip:
    """Images uint8 [B, C, H, W] → float32 [B, D]: projected embeddings, not normalised; D = 768 for HUB.

    Images are resized to the square of the network's config (224² for HUB; bicubic, antialiased, not cropped), grey
    ones repeated to RGB. `weights` is a folder saved by transformers, of CLIP whole or its vision half; None is HUB,
    from Hugging Face's cache or downloaded to there.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        self.network, digest = pretrained("clip", "CLIPVisionModelWithProjection", HUB, weights)
        self.network.to(device)
        self.side = self.network.config.image_size
        self.device = device
        self.protocol = {
            "name": "clip",
            "resize": f"{self.side} × {self.side}, bicubic, antialiased (torch), clamped to 0..255",
            "weights_sha256": digest,
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of one batch."""
        x = standardised(images.to(self.device), self.side, MEAN, STD)
        features: Tensor = self.network(pixel_values=x).image_embeds
        return features
