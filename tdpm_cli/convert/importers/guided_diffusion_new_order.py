"""U-Nets of guided-diffusion trained with --use_new_attention_order."""

from pathlib import Path

from tdpm_cli.convert.external import ImportedModel
from tdpm_cli.convert.guided_diffusion import read_checkpoint

__all__ = ["read"]


def read(path: Path, height: int) -> ImportedModel:
    """Read a checkpoint that was trained with --use_new_attention_order."""
    return read_checkpoint(path, height, new_order=True)
