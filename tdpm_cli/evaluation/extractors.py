"""Feature extractors by name, and the interfaces that they implement."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from tdpm_cli.config import registry
from tdpm_cli.config.external import NOTHING, Confirmation, require
from tdpm_cli.runtime.errors import InputError

PUBLISHED = "inception"  # whose name stays as it is with a file of weights: it compares the file with the published one


class Extractor(Protocol):
    """A file in `features/`. Its `protocol` contains name, resize and weights_sha256: what features depend on."""

    protocol: dict[str, object]

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, D] of images uint8 [B, C, H, W], or of what `prepare` makes of them."""


@runtime_checkable
class PreparesImages(Protocol):
    """An extractor that resizes images on the CPU, in the worker processes that decode them."""

    def prepare(self, images: Tensor) -> Tensor:
        """Return what the extractor takes for images uint8 [B, C, H, W]."""


@runtime_checkable
class TextExtractor(Protocol):
    """An extractor that also scores how well images fit captions; `text_score` is part of the score's name."""

    protocol: dict[str, object]
    text_score: str

    def __call__(self, images: Tensor) -> Tensor:
        """Return features [B, D] of images uint8 [B, C, H, W]."""

    def alignment(self, features: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
        """Return the alignment [B] of images, by their features [B, D], with their captions, averaged over those."""


@runtime_checkable
class NamesFiles(Protocol):
    """An extractor whose file of weights names other files."""

    @staticmethod
    def named_in(weights: Path) -> Mapping[str, str]:
        """Return what the file of weights names, by key."""


@dataclass
class StatisticsFeatures:
    """The features of two files of statistics, which leave nothing to extract."""

    protocol: dict[str, object]

    def __call__(self, images: Tensor) -> Tensor:
        """Files of statistics contain no images."""
        raise NotImplementedError


def load_extractor(
    features: str,
    weights: Path | None,
    device: torch.device,
    option: str = "--features",
    external: Confirmation = NOTHING,
) -> Extractor:
    """Load the extractor "name" or "name:weights", naming `option` in errors.

    Its protocol names the file of weights unless those are the published ones. Raises InputError for unknown names, for
    weights that do not fit, and for weights that name files which are not confirmed.
    """
    name, _, path = features.partition(":")
    if path and weights:
        raise InputError(f"{option} {features} and --weights {weights}: name the weights once")
    weights = Path(path) if path else weights
    component = registry.load("features", name, option)
    if weights is not None and isinstance(component, NamesFiles):
        for key, value in component.named_in(weights).items():
            require(key, value, str(weights), external, f"features that were trained on this machine with {option}")
    extractor: Extractor = component(device, weights)
    if weights is not None and extractor.protocol["name"] == name != PUBLISHED:
        extractor.protocol["name"] = f"{name}-{str(extractor.protocol['weights_sha256'])[:8]}"
    return extractor


def load_text_extractor(features: str, device: torch.device, external: Confirmation = NOTHING) -> TextExtractor:
    """Load the extractor that `--text` names. Raises InputError for one that does not read captions."""
    extractor = load_extractor(features, None, device, "--text", external)
    if not isinstance(extractor, TextExtractor):
        raise InputError(
            f"--text {features}: these features do not read captions; accepted: clip, or image-text:FILE, which "
            "`tdpm data matcher` trains"
        )
    return extractor
