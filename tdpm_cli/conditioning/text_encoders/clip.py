"""The text encoder of CLIP (Radford et al. 2021), which Stable Diffusion uses."""

from pathlib import Path

from tdpm_cli.conditioning.captions.transformers_encoder import TextNetwork, TransformersEncoder

__all__ = ["clip"]

HUB = "openai/clip-vit-large-patch14"


def clip(weights: Path | None = None) -> TransformersEncoder:
    """Tokens [L, 768] of the last layer; the pooled vector is that of the end token, which CLIP compares with images.

    `weights` is a folder that transformers saved, of CLIP or its text half, with its tokenizer.
    """
    last = lambda tokens: tokens[-1]
    return TransformersEncoder(TextNetwork("clip", "CLIPTextModel", HUB, dim=768, limit=77, pool=last), weights)
