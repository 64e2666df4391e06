"""A smaller image that is to be enlarged, and its caption: the second stage of a cascade (Ho et al. 2022a)."""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tdpm_cli.conditioning.text import Text
from tdpm_cli.config.types import Positive, Probability, RawCondition
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Upsampling"]


class Upsampling:
    """`low` float32 [B, C, h, w] in -1..1, which networks enlarge and see beside x; and what `Text` makes of its keys.

    `low` is [C, h, w] of the smaller image. In training it is the image itself, averaged down, with noise of a strength
    drawn from 0 to `low_noise`, so that what the first stage does wrong is not taken for granted (Ho et al. 2022a, sec.
    4.1); the networks are not told the strength. In sampling it is what the user gives, as it is. "Nothing" is grey.
    """

    option = "--prompt"

    def __init__(
        self, *, low: Annotated[list[Positive], Len(3, 3)], low_noise: Probability = 0.3,
        text_encoder: str = "minilm", weights: str | None = None, tokens: Positive = 16, dropout: Probability = 0.1,
        templates: list[str] = ["a photo of a {class}"],  # noqa: B006 (never written to)
        names: list[str] = [], examples: list[str] = [], dim: Positive | None = None,  # noqa: B006
    ) -> None:  # fmt: skip
        self.text = Text(text_encoder=text_encoder, weights=weights, tokens=tokens, dropout=dropout,
                         templates=templates, names=names, examples=examples, dim=dim)  # fmt: skip
        self.low, self.low_noise, self.dropout, self.tokens = tuple(low), low_noise, dropout, tokens
        self.sizes = {**self.text.sizes, "low": low[0]}

    def encode(self, given: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Captions, and smaller images: `low` uint8 as given, or averages of `raw`. Raises InputError for others."""
        return {**self.text.encode(given, generator), "low": self._small(given, generator)}

    def null(self, n: int) -> Cond:
        """Grey images without words."""
        return {**self.text.null(n), "low": torch.zeros(n, *self.low)}

    def text_encoder(self) -> nn.Module | None:
        """The text encoder's network, where it is trained with the model."""
        return self.text.text_encoder()

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Raise InputError: images to enlarge must be given."""
        raise InputError("the model enlarges images, and there are none to draw from; give a folder of them to "
                         "`tdpm sample` with --upsample, and score what it writes")  # fmt: skip

    def fit(self, data: Any) -> dict[str, Any]:
        """As of text."""
        return self.text.fit(data)

    def parse(self, words: Sequence[str], n: int) -> RawCondition:
        """As of text."""
        return self.text.parse(words, n)

    def captions_of(self, given: RawCondition) -> list[tuple[str, ...]]:
        """As of text."""
        return self.text.captions_of(given)

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """As of text."""
        return self.text.prepare(texts, device)

    def cut(self, texts: Sequence[str]) -> list[str]:
        """As of text."""
        return self.text.cut(texts)

    def _small(self, given: RawCondition, generator: torch.Generator | None) -> Tensor:
        if "low" in given:
            return given["low"].float() / 127.5 - 1
        if "raw" not in given:
            raise InputError("the model enlarges images: give a folder of them with --upsample")
        raw, (channels, height, width) = given["raw"], self.low
        if raw.ndim != 4 or raw.shape[1] != channels or raw.shape[2] < height or raw.shape[3] < width:
            raise InputError(f"condition.low is {list(self.low)}, but the data are {list(raw.shape[1:])}: it must be "
                             "smaller images of as many channels")  # fmt: skip
        small = interpolate(raw.float(), size=(height, width), mode="area") / 127.5 - 1
        if generator is None:
            return small
        device = generator.device
        strength = self.low_noise * torch.rand(len(raw), 1, 1, 1, generator=generator, device=device)
        return small.to(device) + strength * torch.randn(small.shape, generator=generator, device=device)
