"""A smaller image to enlarge, and its caption: the second stage of a cascade (Ho et al. 2022a)."""

from collections.abc import Iterator, Sequence
from typing import Annotated

import torch
from annotated_types import Len
from torch import Tensor, nn
from torch.nn.functional import interpolate

from tdpm_cli.conditioning.text import Text
from tdpm_cli.config.types import ExternalPath, Positive, Probability, RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.runtime.errors import InputError

__all__ = ["Upsampling"]


class Upsampling:
    """`low` float32 [B, C, h, w] in [-1, 1], which networks enlarge and concatenate to x; and the tensors of `Text`.

    `low` is the shape [C, h, w] of the smaller image. In training it is the image itself, averaged down, with noise of
    a strength drawn from [0, `low_noise`], so that the model tolerates the errors of the first stage (Ho et al. 2022a,
    sec. 4.1); networks do not receive the strength. In sampling it is the user's image. "Nothing" is grey.
    """

    option = "--prompt"

    def __init__(
        self, *, low: Annotated[list[Positive], Len(3, 3)], low_noise: Probability = 0.3,
        text_encoder: str = "minilm", weights: ExternalPath | None = None, tokens: Positive = 16,
        dropout: Probability = 0.1,
        templates: list[str] = ["a photo of a {class}"],  # noqa: B006 (never written to)
        names: list[str] = [], examples: list[str] = [], dim: Positive | None = None,  # noqa: B006
    ) -> None:  # fmt: skip
        self.text = Text(text_encoder=text_encoder, weights=weights, tokens=tokens, dropout=dropout,
                         templates=templates, names=names, examples=examples, dim=dim)  # fmt: skip
        self.low, self.low_noise, self.dropout, self.tokens = tuple(low), low_noise, dropout, tokens
        self.sizes = {**self.text.sizes, "low": low[0]}

    def encode(self, raw_condition: RawCondition, generator: torch.Generator | None = None) -> Cond:
        """Encode captions, and the smaller images: `low` uint8, or averages of `raw`. Raises InputError for others."""
        return {**self.text.encode(raw_condition, generator), "low": self._small(raw_condition, generator)}

    def null(self, n: int) -> Cond:
        """Return grey images with empty captions."""
        return {**self.text.null(n), "low": torch.zeros(n, *self.low)}

    def text_encoder(self) -> nn.Module | None:
        """Return the text encoder's network if it is trained with the model."""
        return self.text.text_encoder()

    def draw(self, n: int, noise: Noise) -> RawCondition:
        """Raise InputError: a model cannot draw images to enlarge."""
        raise InputError("the model enlarges images and cannot draw any; name a folder of images with `tdpm sample "
                         "--upsample`, and score its output")  # fmt: skip

    def fit(self, dataset: Dataset) -> dict[str, object]:
        """Return what `Text.fit` returns."""
        return self.text.fit(dataset)

    def parse(self, texts: Sequence[str], n: int) -> RawCondition:
        """Return n captions that repeat the prompts."""
        return self.text.parse(texts, n)

    def captions_of(self, raw_condition: RawCondition) -> list[tuple[str, ...]]:
        """Return the captions of each example."""
        return self.text.captions_of(raw_condition)

    def prepare(self, texts: Sequence[str], device: torch.device) -> Iterator[int]:
        """Embed texts once, on a device; yield the number of texts processed since the last yield."""
        return self.text.prepare(texts, device)

    def truncated(self, texts: Sequence[str]) -> list[str]:
        """Return the texts that are longer than `tokens`."""
        return self.text.truncated(texts)

    def _small(self, raw_condition: RawCondition, generator: torch.Generator | None) -> Tensor:
        if "low" in raw_condition:
            return raw_condition["low"].float() / 127.5 - 1
        if "raw" not in raw_condition:
            raise InputError("the model enlarges images; name a folder of them with --upsample")
        raw, (channels, height, width) = raw_condition["raw"], self.low
        if raw.ndim != 4 or raw.shape[1] != channels or raw.shape[2] < height or raw.shape[3] < width:
            raise InputError(f"condition.low is {list(self.low)}, but the data are {list(raw.shape[1:])}; use the "
                             "shape of smaller images with as many channels")  # fmt: skip
        small = interpolate(raw.float(), size=(height, width), mode="area") / 127.5 - 1
        if generator is None:
            return small
        device = generator.device
        strength = self.low_noise * torch.rand(len(raw), 1, 1, 1, generator=generator, device=device)
        return small.to(device) + strength * torch.randn(small.shape, generator=generator, device=device)
