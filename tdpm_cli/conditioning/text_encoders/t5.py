"""T5's encoder (Raffel et al. 2020): a text network that saw no images; the larger the better (Saharia et al. 2022)."""

from pathlib import Path

from tdpm_cli.conditioning.captions.transformers_encoder import TextEncoder

__all__ = ["t5"]

HUB = "google-t5/t5-large"


def t5(weights: Path | None = None) -> TextEncoder:
    """Tokens [L, 1024] of the last layer, and their mean. `weights` is a folder that transformers saved."""
    return TextEncoder("t5", "T5EncoderModel", HUB, weights, dim=1024, limit=512, pooled=lambda tokens: tokens.mean(0))
