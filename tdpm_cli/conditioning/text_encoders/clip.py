"""CLIP's text half (Radford et al. 2021): what Stable Diffusion is conditioned on."""

from pathlib import Path

from tdpm_cli.conditioning.captions.transformers_encoder import TextEncoder

__all__ = ["clip"]

HUB = "openai/clip-vit-large-patch14"


def clip(weights: Path | None = None) -> TextEncoder:
    """Tokens [L, 768] of the last layer, and that of the end, which CLIP itself compares with images.

    `weights` is a folder that transformers saved, of CLIP whole or its text half, with its tokenizer.
    """
    return TextEncoder("clip", "CLIPTextModel", HUB, weights, dim=768, limit=77, pooled=lambda tokens: tokens[-1])
