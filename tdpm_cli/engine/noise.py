"""Random numbers for sampling: image k depends on (seed, k) alone, at any batch size, in any order, on any device.

Philox 4x32-10 is a counter-based generator without state (Salmon et al. 2011): number i of image k is a function of
(seed, k, i), so all numbers of a batch are computed in parallel, on the device that needs them. Integers are the same
on every device; normals differ by the rounding of logarithm and cosine.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

_NOISE, _CHOICE = 0, 1  # separate streams: drawing a label does not change the noise
_ROUNDS, _WORD = 10, 0xFFFFFFFF
_MULTIPLIERS, _WEYL = (0xD2511F53, 0xCD9E8D57), (0x9E3779B9, 0xBB67AE85)  # of Philox 4x32


class Noise:
    """One independent random stream for each image of a batch, keyed by (seed, index); both at least 0."""

    def __init__(self, seed: int, indices: Sequence[int], device: torch.device | str = "cpu") -> None:
        self.device = torch.device(device)
        self._key = (seed & _WORD, seed >> 32)
        self._indices = torch.tensor(list(indices), dtype=torch.long, device=self.device)
        self._drawn = [0, 0]  # blocks of four numbers, of each stream

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Draw the next standard normal [B, *shape] in float32."""
        count = math.prod(shape)
        integers = torch.stack(self._blocks(_NOISE, -(-count // 4)), -1)  # [B, blocks, 4]
        uniform = ((integers >> 8).float() + 0.5) / (1 << 24)
        # Box and Muller (1958): two uniform numbers give radius and angle of two normals.
        radius, angle = (-2 * uniform[..., 0::2].log()).sqrt(), 2 * math.pi * uniform[..., 1::2]
        pairs = torch.stack([radius * angle.cos(), radius * angle.sin()], -1)
        return pairs.flatten(1)[:, :count].reshape(-1, *shape)

    def choice(self, count: int) -> Tensor:
        """Draw the next integer in 0..count-1 for each image: int64 [B]. `count` is at most 2^31."""
        return (self._blocks(_CHOICE, 1)[0][:, 0] * count) >> 32

    def _blocks(self, stream: int, blocks: int) -> list[Tensor]:
        """Return the next `blocks` blocks of each image: four words of 32 bits [B, blocks], in int64."""
        position = self._drawn[stream] + torch.arange(blocks, device=self.device).expand(len(self._indices), -1)
        self._drawn[stream] += blocks
        index = self._indices[:, None].expand_as(position)
        return philox([position & _WORD, torch.full_like(position, stream), index & _WORD, index >> 32], self._key)


def philox(counter: Sequence[Tensor], key: tuple[int, int]) -> list[Tensor]:
    """Philox 4x32-10: four words of 32 bits from a counter of four and a key of two, all in int64 of one shape."""
    a, b, c, d = counter
    for number in range(_ROUNDS):
        low, high = ((word + number * step) & _WORD for word, step in zip(key, _WEYL, strict=True))
        high_a, low_a = _product(a, _MULTIPLIERS[0])
        high_c, low_c = _product(c, _MULTIPLIERS[1])
        a, b, c, d = high_c ^ b ^ low, low_c, high_a ^ d ^ high, low_a
    return [a, b, c, d]


def _product(word: Tensor, by: int) -> tuple[Tensor, Tensor]:
    """Return the upper and lower 32 bits of a product of 32-bit words, by halves, because int64 is signed."""
    below = word * (by & 0xFFFF)
    above = word * (by >> 16) + (below >> 16)
    return above >> 16, ((above & 0xFFFF) << 16) | (below & 0xFFFF)
