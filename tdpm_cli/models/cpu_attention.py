"""Attention (Vaswani et al. 2017, eq. 1), with plain products where PyTorch's fused kernel is slow on a CPU.

In bf16 and for few tokens the fused kernel takes up to three times as long. Training uses it nevertheless: it computes
attention weights in float32, and does not keep them for the backward pass.
"""

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

FEW = 256  # tokens, up to which plain products are faster


def attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Return softmax(query · keyᵀ / √D) · value [B, heads, N, D]; key and value are [B, heads, M, D]."""
    few = max(query.shape[-2], key.shape[-2]) <= FEW
    slow = query.device.type == "cpu" and query.dtype == torch.bfloat16 and few and not torch.is_grad_enabled()
    if not slow:
        return scaled_dot_product_attention(query, key, value)
    return (query * query.shape[-1] ** -0.5 @ key.transpose(-2, -1)).softmax(-1) @ value
