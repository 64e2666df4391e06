"""Layers that several networks share.

Those with weights have equalised learning rate (Karras et al. 2018, sec. 4.1): weights of unit variance, scaled in use.
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


def with_minibatch_std(x: Tensor, group: int) -> Tensor:
    """Append one channel: the spread within a group of neighbouring examples, averaged (Karras et al. 2018, sec. 3)."""
    batch, _, height, width = x.shape
    size = next(n for n in range(min(group, batch), 0, -1) if batch % n == 0)
    members = x.float().reshape(batch // size, size, -1)
    variance = (members - members.mean(1, keepdim=True)).square().mean(1)
    spread = (variance + 1e-8).sqrt().mean(1).to(x.dtype)  # [batch / size]
    return torch.cat([x, spread.repeat_interleave(size).view(batch, 1, 1, 1).expand(-1, 1, height, width)], 1)


def time_frequencies(n: int) -> Tensor:
    """Return n angular frequencies [n] for `waves`: from one turn over the usual 1000 steps up to 256 turns."""
    return 2 * math.pi / 1000 * 2 ** torch.linspace(0, 8, n)


def waves(t: Tensor, frequencies: Tensor) -> Tensor:
    """Return sines and cosines [B, 2n] of times t [B] at n frequencies (Vaswani et al. 2017, sec. 3.5)."""
    angle = t[:, None] * frequencies
    return torch.cat([angle.sin(), angle.cos()], 1)
