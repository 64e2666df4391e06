"""Layers with equalised learning rate (Karras et al. 2018, sec. 4.1): weights of unit variance, scaled in use.

Inputs or outputs are scaled instead of weights, which is equivalent and saves a copy of the weights at every call.
Every operation is differentiable twice, as R1 needs.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, leaky_relu, linear


class Conv(nn.Module):
    """A convolution and its activation. With `halve`, a blur comes first and the image is halved."""

    blur: Tensor

    def __init__(self, c_in: int, c_out: int, size: int, halve: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in, size, size))
        self.bias = nn.Parameter(torch.zeros(c_out)) if bias else None
        self.gain = 1 / math.sqrt(c_in * size**2)
        self.padding, self.halve = size // 2, halve
        tap = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("blur", torch.outer(tap, tap)[None, None], persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return activate(self.unscaled(x), self.gain)

    def unscaled(self, x: Tensor) -> Tensor:
        """The convolution divided by `gain`, not activated."""
        weight, bias = self.weight, None if self.bias is None else self.bias / self.gain
        if not self.halve:
            return conv2d(x, weight, bias, padding=self.padding)
        blur = self.blur.to(x.dtype).expand(x.shape[1], -1, -1, -1)
        if self.padding == 0:  # a 1×1 convolution sees only the pixels kept
            # First blurred, then halved: oneDNN's backward pass of a strided blur takes 8 times as long in bf16.
            kept = conv2d(odd_padded(x), blur, padding=1, groups=x.shape[1])[:, :, ::2, ::2]
            return conv2d(kept, weight, bias)
        blurred = conv2d(odd_padded(x), blur, padding=2, groups=x.shape[1])
        return conv2d(blurred, weight, bias, stride=2)


class Linear(nn.Module):
    """A linear layer whose weights learn `rate` times as fast. Its bias starts at `bias`."""

    def __init__(self, c_in: int, c_out: int, rate: float = 1.0, bias: float = 0.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(c_out, c_in) / rate)
        self.bias = nn.Parameter(torch.full((c_out,), bias / rate))
        self.gain, self.rate = rate / math.sqrt(c_in), rate

    def forward(self, x: Tensor) -> Tensor:
        return linear(x * self.gain, self.weight, self.bias * self.rate)


def odd_padded(x: Tensor) -> Tensor:
    """Repeat the last row or column of an odd side, so that it halves to (side + 1) / 2."""
    if x.shape[2] % 2:
        x = torch.cat([x, x[:, :, -1:]], 2)
    if x.shape[3] % 2:
        x = torch.cat([x, x[:, :, :, -1:]], 3)
    return x


def activate(x: Tensor, gain: float = 1.0) -> Tensor:
    """Return leaky ReLU of `gain` · x, scaled to the variance of `gain` · x."""
    return leaky_relu(x, 0.2) * (math.sqrt(2) * gain)
