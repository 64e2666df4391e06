"""Features of a small network that `tdpm data matcher` trains on your data; scores captions without CLIP.

Its text score is a retrieval accuracy: how often an image is nearer to its own caption than to others of the data.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from torch.nn.functional import interpolate, normalize

from tdpm_cli.checkpoints.weights import require_same, tensors_of
from tdpm_cli.conditioning.captions.cache import Embeddings
from tdpm_cli.config.registry import load
from tdpm_cli.config.types import Positive
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256
from tdpm_cli.runtime.records import Natural, Record, check_record

__all__ = ["ImageText"]

FORMAT = "tdpm image-text 1"
CHOICES = 10  # captions to choose from, one of them right


class MatcherSettings(Record):
    """What a file of weights states beside them."""

    channels: Positive
    side: Positive
    dim: Positive
    encoder: str
    weights: str | None
    tokens: Positive
    captions: list[list[str]]
    data: str
    images: Natural


class Matcher(nn.Module):
    """Images uint8 [B, C, H, W] and pooled texts [B, `dim`] → unit vectors [B, 128], near for matching pairs.

    Images are resized to `side` pixels; convolutions halve them until 4 pixels are left.
    """

    def __init__(self, channels: int, side: int, dim: int, width: int = 32) -> None:
        super().__init__()
        self.channels, self.side = channels, side
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, padding=1), nn.SiLU()]
        while side > 4:
            wider = min(2 * width, 256)
            layers += [nn.Conv2d(width, wider, 3, stride=2, padding=1), nn.GroupNorm(8, wider), nn.SiLU()]
            width, side = wider, (side + 1) // 2
        self.body = nn.Sequential(
            *layers, nn.Flatten(), nn.Linear(width * side**2, 256), nn.SiLU(), nn.Linear(256, 128)
        )
        self.of_text = nn.Sequential(nn.Linear(dim, 256), nn.SiLU(), nn.Linear(256, 128))
        self.sharpness = nn.Parameter(torch.tensor(2.0))  # logarithm of the factor of cosines

    def prepared(self, images: Tensor) -> Tensor:
        """Resize uint8 [B, C, H, W] to float32 [B, `channels`, `side`, `side`] in -1..1; repeat grey images to RGB."""
        x = images.float().expand(-1, self.channels, -1, -1) / 127.5 - 1
        if x.shape[2:] == (self.side, self.side):
            return x
        return interpolate(x, size=(self.side, self.side), mode="bilinear", antialias=True)

    def of_images(self, x: Tensor) -> Tensor:
        """Return unit vectors [B, 128] of prepared images."""
        return normalize(self.body(x).float(), dim=1)

    def of_texts(self, pooled: Tensor) -> Tensor:
        """Return unit vectors [B, 128] of pooled texts [B, `dim`]."""
        return normalize(self.of_text(normalize(pooled, dim=1) * pooled.shape[1] ** 0.5).float(), dim=1)


class ImageText:
    """Images uint8 [B, C, H, W] → float32 [B, 128], unit vectors, by the matcher in the file `weights`."""

    text_score = f"R@1 of {CHOICES}"

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        if weights is None:
            raise InputError(
                "image-text: no file; train one with `tdpm data matcher FILE --preset NAME`, then use image-text:FILE"
            )
        metadata, tensors = read(weights)
        self.groups: list[list[str]] = metadata["captions"]
        self._position = {text: k for group in self.groups for k, text in enumerate(group)}
        sizes = metadata["channels"], metadata["side"], metadata["dim"]
        with torch.device("meta"):
            expected = tensors_of(Matcher(*sizes))
        require_same(expected, {name: list(tensor.shape) for name, tensor in tensors.items()}, str(weights))
        self.matcher = Matcher(*sizes)
        self.matcher.load_state_dict(tensors)
        self.matcher.to(device).eval().requires_grad_(False)
        encoder = load("text_encoder", metadata["encoder"])(Path(metadata["weights"]) if metadata["weights"] else None)
        self.embeddings = Embeddings(lambda texts: encoder(texts, metadata["tokens"]), metadata["dim"],
                                     f"{encoder.identity} {metadata['tokens']}")  # fmt: skip
        self.device = device
        self.protocol = {
            "name": "image-text",
            "resize": f"{metadata['side']} × {metadata['side']}, bilinear, antialiased (torch)",
            "weights_sha256": sha256(weights),
            "trained_on": metadata["data"],
            "trained_images": metadata["images"],
        }

    @staticmethod
    def named_in(weights: Path) -> dict[str, str]:
        """Return the folder of the text encoder, if the file names one."""
        metadata, _ = read(weights)
        return {"condition.weights": str(metadata["weights"])} if metadata["weights"] else {}

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Return the features of one batch."""
        return self.matcher.of_images(self.matcher.prepared(images.to(self.device)))

    @torch.inference_mode()
    def alignment(self, features: Tensor, captions: Sequence[Sequence[str]]) -> Tensor:
        """Return [B]: 100 for an image nearer to its caption than to nine others, else 0; averaged over its captions.

        The others come from images of the matcher's training data that do not share the caption, in the same position
        (an image's first, second, … caption). Which ones depends on the caption alone.
        """
        choices = [[(text, *self._others(text)) for text in texts] for texts in captions]
        every = list(dict.fromkeys(text for own in choices for candidates in own for text in candidates))
        pooled = torch.stack([embedded.pooled for embedded in self.embeddings(every)])
        vectors = dict(zip(every, self.matcher.of_texts(pooled.to(self.device)), strict=True))

        def is_right(image: Tensor, candidates: Sequence[str]) -> bool:
            return int(torch.stack([vectors[text] @ image for text in candidates]).argmax()) == 0

        shares = [sum(is_right(image, candidates) for candidates in own) / len(own)
                  for image, own in zip(features.to(self.device), choices, strict=True)]  # fmt: skip
        return 100 * torch.tensor(shares)

    def _others(self, text: str) -> list[str]:
        position = self._position.get(text, 0)
        seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")
        order = torch.randperm(len(self.groups), generator=torch.Generator().manual_seed(seed)).tolist()
        others = (self.groups[k] for k in order if text not in self.groups[k])
        return [group[position % len(group)] for group, _ in zip(others, range(CHOICES - 1), strict=False)]


def read(path: Path) -> tuple[dict, dict[str, Tensor]]:
    """Read the metadata and the weights of a matcher. Raises InputError for another file."""
    if not path.is_file():
        raise InputError(f"{path}: no such file; `tdpm data matcher {path} --preset NAME` writes one")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            if metadata.get("format") != FORMAT:
                raise InputError(f"{path}: {metadata.get('format', 'no header of tdpm')}; accepted: a file that "
                                 "`tdpm data matcher` wrote")  # fmt: skip
            settings = json.loads(metadata.get("settings", ""))
            check_record(settings, MatcherSettings, str(path), "train it again with `tdpm data matcher`")
            return settings, {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118
    except (SafetensorError, ValueError, RecursionError, OSError) as error:
        raise InputError(f"{path}: not a safetensors file, or a damaged one ({error})") from None
