"""Latents of an autoencoder (Rombach et al. 2022): images where they are stored, small maps where they are learned."""

import hashlib
import json
import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Len
from torch import Tensor

from tdpm_cli.config.types import Positive, PositiveFloat
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.spaces.pixels import Pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Latents"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KINDS = ("AutoencoderKL", "VQModel")


class Latents:
    """raw uint8 [B, C, H, W] → x float32 [B, `channels`, H / `factor`, W / `factor`] → raw, by an autoencoder.

    Or from float32 [B, 2 · `channels`, ...], the mean and standard deviation that `tdpm data encode` kept. `shape` is
    [C, H, W] of the images; `autoencoder` a folder, or a name of the hub. `scale` multiplies latents, to about unit
    variance; None is the autoencoder's own. `slices` images are decoded at a time.
    """

    bounds = None

    def __init__(
        self, *, shape: Annotated[list[Positive], Len(3, 3)], autoencoder: str, channels: Positive = 4,
        factor: Positive = 8, scale: PositiveFloat | None = None, slices: Positive = 16,
    ) -> None:  # fmt: skip
        self._pixels = Pixels(shape=shape)
        self.raw_shape = self._pixels.raw_shape
        if any(side % factor for side in shape[1:]):
            raise InputError(f"space.shape is {shape}: its height and width must divide by space.factor, {factor}")
        self.shape = (channels, shape[1] // factor, shape[2] // factor)
        self.source, self.factor, self.scale, self.slices = autoencoder, factor, scale, slices

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents; without a generator their mean."""
        autoencoder = self.autoencoder
        if raw.dtype == torch.uint8:
            mean, std = autoencoder.encode(self._pixels.encode(raw))
        else:
            mean, std = raw.float().chunk(2, 1)
        if generator is not None:
            mean = mean + std * torch.randn(std.shape, generator=generator, device=std.device)
        return (mean - autoencoder.shift) * (self.scale or autoencoder.scale)

    def decode(self, x: Tensor) -> Tensor:
        """Decode to images."""
        autoencoder = self.autoencoder
        latents = x / (self.scale or autoencoder.scale) + autoencoder.shift
        return self._pixels.decode(autoencoder.decode(latents, self.slices))

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """As of pixels."""
        return self._pixels.to_image(raw, columns)

    @cached_property
    def autoencoder(self) -> "Autoencoder":
        """Loaded when it is first needed. Raises InputError for one of other latents than the space's."""
        found = Autoencoder(self.source)
        if (found.channels, found.factor) != (self.shape[0], self.factor):
            raise InputError(
                f"space.channels is {self.shape[0]} and space.factor {self.factor}, but {self.source} makes "
                f"{found.channels} channels at 1/{found.factor} of the size; set them to its own"
            )
        if self.scale and not math.isclose(self.scale, found.scale, rel_tol=0.01) and found.scale != 1:
            raise InputError(f"space.scale is {self.scale:g}, but {self.source} states {found.scale:g}; leave it out")
        return found


class Autoencoder:
    """Images float32 [B, C, H, W] in -1..1 ↔ latents [B, `channels`, H / `factor`, W / `factor`], before scaling.

    `source` is a folder that diffusers saved, or OWNER/NAME of the hub. Always in float32: the decoders of Stable
    Diffusion's XL overflow in float16. Raises InputError for what is not there or is something else.
    """

    def __init__(self, source: str) -> None:
        try:
            import diffusers
        except ImportError:
            raise InputError("autoencoders need diffusers; install it with: pip install 'tdpm-cli[latents]'") from None
        self.source, folder = source, _folder(source)
        settings = _settings(folder)
        self.kind = settings["_class_name"]
        try:
            load = getattr(diffusers, self.kind).from_pretrained
            self.network = load(folder, local_files_only=True, low_cpu_mem_usage=False).float().eval()
        except Exception as error:  # a damaged file, other shapes: each a class of its own
            raise InputError(f"{folder}: cannot be loaded as {self.kind} ({str(error).splitlines()[0]})") from None
        self.network.requires_grad_(False)
        self.channels = int(settings["latent_channels"])
        self.factor = 2 ** (len(settings["block_out_channels"]) - 1)
        self.scale, self.shift = float(settings.get("scaling_factor") or 1), float(settings.get("shift_factor") or 0)
        self.sha256 = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and standard deviation of the latents; the deviation of a VQModel is 0."""
        with torch.autocast(x.device.type, enabled=False):
            found = self._on(x.device).encode(x.float())
        if self.kind == "VQModel":
            return found.latents, torch.zeros_like(found.latents)
        return found.latent_dist.mean, found.latent_dist.std

    @torch.no_grad()
    def decode(self, latents: Tensor, slices: int | None) -> Tensor:
        """Images, `slices` at a time; where that is None all at once."""
        network = self._on(latents.device)
        with torch.autocast(latents.device.type, enabled=False):
            parts = [latents.float()] if slices is None else latents.float().split(slices)
            return torch.cat([network.decode(part).sample for part in parts])

    def _on(self, device: torch.device) -> Any:
        """The network, moved only where it must be: it cannot be while it is traced."""
        return self.network if self.network.device == device else self.network.to(device)


def _folder(source: str) -> Path:
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith(("/", ".")):
        raise InputError(f"space.autoencoder is {source!r}: no such folder; give one that diffusers saved, or "
                         "OWNER/NAME of the hub; `tdpm data autoencoder` trains a small one")  # fmt: skip
    from huggingface_hub import HfApi, snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS], local_files_only=True))
    except Exception as missing:
        try:
            HfApi().model_info(source, timeout=10)  # without a network this fails soon; a download retries for minutes
            return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
        except Exception:
            raise InputError(
                f"space.autoencoder is {source!r}: no such folder, not in Hugging Face's cache, and it could not be "
                f"downloaded ({str(missing).splitlines()[0]}). Put {CONFIG} and {WEIGHTS} into a folder and give that; "
                "or train a small one with `tdpm data autoencoder`"
            ) from None


def _settings(folder: Path) -> dict[str, Any]:
    try:
        settings = json.loads((folder / CONFIG).read_text())
        kind = settings["_class_name"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"{folder}: no {CONFIG} of an autoencoder there ({error})") from None
    if kind not in KINDS:
        raise InputError(f"{folder}: {CONFIG} is of a {kind}; accepted: {', '.join(KINDS)}")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: no {WEIGHTS} there")
    return dict(settings)
