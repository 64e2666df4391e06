"""The time of a step as an input of networks."""

import torch
from torch import Tensor


def full(x: Tensor, t: int) -> Tensor:
    """Repeat t for each example of x: int64 [B]."""
    # x.shape[0] instead of len(x): len would fix the batch of an exported graph.
    return torch.full((x.shape[0],), t, device=x.device)
