"""CLIP's image embeddings, by a network trained to match images and captions (Radford et al. 2021)."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from tdpm_cli.checkpoints.pretrained import cached, pretrained
from tdpm_cli.evaluation.features.dinov2 import standardised
from tdpm_cli.runtime.errors import InputError, first_line

if TYPE_CHECKING:
    from transformers import CLIPTokenizer, PreTrainedModel

__all__ = ["Clip"]

HUB = "openai/clip-vit-large-patch14"
OPTION = "--features clip:PATH or --weights PATH"
# Of RGB in 0..1, from the preprocessing in openai/CLIP.
MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)


class Clip:
    """Images uint8 [B, C, H, W] → float32 [B, D]: projected embeddings, not normalised; D = 768 for HUB.

    Images are resized to the square that the network's config names (224² for HUB; bicubic, antialiased, not cropped);
    grey images are repeated to RGB. `weights` is a folder saved by transformers: a complete CLIP, or its vision half.
    None means HUB, from Hugging Face's cache or downloaded to it.
    """

    text_score = "text score"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        self.weights = weights
        self._text: tuple[CLIPTokenizer, PreTrainedModel] | None = None  # loaded on first use
        self.network, digest = pretrained("clip", "CLIPVisionModelWithProjection", HUB, weights, OPTION)
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
        """Return the features of one batch."""
        x = standardised(images.to(self.device), self.side, MEAN, STD)
        features: Tensor = self.network(pixel_values=x).image_embeds
        return features

    @torch.inference_mode()
    def alignment(self, features: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
        """Return 100 · max(cos, 0) [B] between images' features [B, D] and captions, averaged over those of an image.

        CLIPScore (Hessel et al. 2021, eq. 1) times 40. Captions beyond the network's length are truncated. Raises
        InputError if the weights contain no text network.
        """
        if self._text is None:
            network, _ = pretrained("clip", "CLIPTextModelWithProjection", HUB, self.weights, OPTION)
            self._text = load_tokenizer(self.weights), network.to(self.device)
        tokenizer, text_network = self._text
        texts = [text for own in captions for text in own]
        tokens = tokenizer(texts, padding=True, truncation=True, return_tensors="pt",
                      max_length=text_network.config.max_position_embeddings).to(self.device)  # fmt: skip
        embedded = torch.nn.functional.normalize(text_network(**tokens).text_embeds, dim=1)
        images = torch.nn.functional.normalize(features.to(self.device), dim=1)
        owner = torch.tensor([k for k, own in enumerate(captions) for _ in own], device=self.device)
        values = 100 * (images[owner] * embedded).sum(1).clamp(min=0)
        counts = torch.tensor([len(own) for own in captions], device=self.device)
        return torch.zeros(len(images), device=self.device).index_add(0, owner, values).div(counts).cpu()


def load_tokenizer(weights: Path | None) -> "CLIPTokenizer":
    """Load CLIP's tokenizer. Raises InputError if its files are missing or damaged."""
    from transformers import CLIPTokenizer

    try:
        folder = weights or cached("clip", HUB, OPTION)
        return CLIPTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except InputError:
        raise
    except Exception as error:  # OSError for missing files, others for damaged ones
        raise InputError(
            f"{weights or HUB}: CLIP's tokenizer not found ({first_line(error)}); use a complete folder saved by "
            "transformers, with tokenizer.json, or vocab.json and merges.txt"
        ) from None
