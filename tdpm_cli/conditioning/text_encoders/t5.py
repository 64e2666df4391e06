"""T5's encoder (Raffel et al. 2020): a network trained on text alone; larger is better (Saharia et al. 2022)."""

from pathlib import Path

from tdpm_cli.conditioning.captions.transformers_encoder import TextNetwork, TransformersEncoder

__all__ = ["t5"]

HUB = "google-t5/t5-large"


def t5(weights: Path | None = None) -> TransformersEncoder:
    """Tokens [L, 1024] of the last layer, and their mean. `weights` is a folder that transformers saved."""
    mean = lambda tokens: tokens.mean(0)
    return TransformersEncoder(TextNetwork("t5", "T5EncoderModel", HUB, dim=1024, limit=512, pool=mean), weights)
