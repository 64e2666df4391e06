"""Latents of an autoencoder (Rombach et al. 2022): data are images, and networks see small feature maps."""

import math
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import torch
from annotated_types import Len, MinLen
from pydantic import Field
from torch import Tensor

from tdpm_cli.checkpoints.weights import check_size
from tdpm_cli.config.types import ExternalName, Positive, PositiveFloat
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import Json, sha256
from tdpm_cli.runtime.records import Record, read_record
from tdpm_cli.spaces.pixels import Pixels

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["Latents"]

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
CLASSES = ("AutoencoderKL", "VQModel")  # of diffusers
HUB_TIMEOUT = 10  # seconds; without a network, a download would retry for minutes


class Latents:
    """raw uint8 [B, C, H, W] → x float32 [B, `channels`, H / `factor`, W / `factor`] → raw, by an autoencoder.

    Or from float32 [B, 2 · `channels`, ...], the mean and standard deviation that `tdpm data encode` stored. `shape` is
    [C, H, W] of the images; `autoencoder` a folder, or a name on the hub. `scale` multiplies latents, to about unit
    variance; None is the autoencoder's own. `slices` images are decoded at a time; None decodes all together.
    """

    bounds = None

    def __init__(
        self, *, shape: Annotated[list[Positive], Len(3, 3)], autoencoder: ExternalName, channels: Positive = 4,
        factor: Positive = 8, scale: PositiveFloat | None = None, slices: Positive = 16,
    ) -> None:  # fmt: skip
        self._pixels = Pixels(shape=shape)
        self.raw_shape = self._pixels.raw_shape
        if any(side % factor for side in shape[1:]):
            raise InputError(
                f"space.shape is {shape}; its height and width must be multiples of space.factor, {factor}"
            )
        self.shape = (channels, shape[1] // factor, shape[2] // factor)
        self.source, self.factor, self.scale = autoencoder, factor, scale
        self.slices: int | None = slices

    def encode(self, raw: Tensor, generator: torch.Generator | None = None) -> Tensor:
        """Draw latents from the encoder's distribution; without a generator, return its mean."""
        autoencoder = self.autoencoder
        if raw.dtype == torch.uint8:
            mean, std = autoencoder.encode(self._pixels.encode(raw))
        else:
            mean, std = raw.float().chunk(2, 1)
        if generator is not None:
            mean = mean + std * torch.randn(std.shape, generator=generator, device=std.device)
        return (mean - autoencoder.shift) * (self.scale or autoencoder.scale)

    def decode(self, x: Tensor) -> Tensor:
        """Decode latents to images."""
        autoencoder = self.autoencoder
        latents = x / (self.scale or autoencoder.scale) + autoencoder.shift
        return self._pixels.decode(autoencoder.decode(latents, self.slices))

    def to_image(self, raw: Tensor, columns: int | None = None) -> "Image.Image":
        """Draw the first 64 images in a grid."""
        return self._pixels.to_image(raw, columns)

    @cached_property
    def autoencoder(self) -> "Autoencoder":
        """The autoencoder, loaded when it is first needed. Raises InputError if its latents have another shape."""
        autoencoder = Autoencoder(self.source)
        if (autoencoder.channels, autoencoder.factor) != (self.shape[0], self.factor):
            raise InputError(
                f"space.channels is {self.shape[0]} and space.factor {self.factor}, but {self.source} has "
                f"{autoencoder.channels} channels at 1/{autoencoder.factor} of the size; use its values"
            )
        own = autoencoder.scale
        if self.scale and not math.isclose(self.scale, own, rel_tol=0.01) and own != 1:
            raise InputError(f"space.scale is {self.scale:g}, but {self.source} states {own:g}; remove space.scale")
        return autoencoder


class AutoencoderConfig(Record):
    """The keys of an autoencoder's config that are used here."""

    latent_channels: Positive = 4
    block_out_channels: Annotated[list[Positive], MinLen(1)] = Field(default_factory=lambda: [64])
    scaling_factor: float | None = None
    shift_factor: float | None = None


class Autoencoder:
    """Images float32 [B, C, H, W] in [-1, 1] ↔ latents [B, `channels`, H / `factor`, W / `factor`], before scaling.

    `source` is a folder that diffusers saved, or OWNER/NAME on the hub. It computes in float32, because the decoder of
    Stable Diffusion XL overflows in float16. Raises InputError for a source that is missing or is not an autoencoder.
    """

    def __init__(self, source: str) -> None:
        try:
            import diffusers
        except ImportError:
            raise InputError("autoencoders need diffusers; install it with: pip install 'tdpm-cli[latents]'") from None
        self.source, folder = source, _find(source)
        settings = _read_config(folder)
        self.class_name: str = settings["_class_name"]
        try:
            network = getattr(diffusers, self.class_name)
            check_size(folder / WEIGHTS, lambda: network.from_config(settings))
            loaded = network.from_pretrained(
                folder, local_files_only=True, use_safetensors=True, low_cpu_mem_usage=False
            )
            self.network = loaded.float().eval()
        except InputError:
            raise
        except Exception as error:  # a damaged file, other shapes: each raises its own class
            raise InputError(f"{folder}: cannot be loaded as {self.class_name} ({first_line(error)})") from None
        self.network.requires_grad_(False)
        self.channels = int(settings["latent_channels"])
        self.factor = 2 ** (len(settings["block_out_channels"]) - 1)
        self.scale, self.shift = float(settings.get("scaling_factor") or 1), float(settings.get("shift_factor") or 0)
        self.sha256 = sha256(folder / WEIGHTS)

    @torch.no_grad()
    def encode(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return the mean and standard deviation of the latents; the deviation of a VQModel is 0."""
        with torch.autocast(x.device.type, enabled=False):
            encoded = self._on(x.device).encode(x.float())
        if self.class_name == "VQModel":
            return encoded.latents, torch.zeros_like(encoded.latents)
        return encoded.latent_dist.mean, encoded.latent_dist.std

    @torch.no_grad()
    def decode(self, latents: Tensor, slices: int | None) -> Tensor:
        """Return images, decoded `slices` at a time; None decodes all at once."""
        network = self._on(latents.device)
        with torch.autocast(latents.device.type, enabled=False):
            groups = [latents.float()] if slices is None else latents.float().split(slices)
            return torch.cat([network.decode(group).sample for group in groups])

    def _on(self, device: torch.device) -> Any:
        """Return the network on a device. A network that is being traced must not be moved."""
        return self.network if self.network.device == device else self.network.to(device)


def _find(source: str) -> Path:
    """Return the folder of an autoencoder, downloaded if needed."""
    if Path(source).is_dir():
        return Path(source)
    if source.count("/") != 1 or source.startswith(("/", ".")):
        raise InputError(f"space.autoencoder is {source!r}: no such folder; name a folder that diffusers saved, or "
                         "OWNER/NAME on the hub, or train a small one with `tdpm data autoencoder`")  # fmt: skip
    from huggingface_hub import HfApi, snapshot_download

    try:
        return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS], local_files_only=True))
    except Exception as missing:
        try:
            HfApi().model_info(source, timeout=HUB_TIMEOUT)
            return Path(snapshot_download(source, allow_patterns=[CONFIG, WEIGHTS]))
        except Exception:
            raise InputError(
                f"space.autoencoder is {source!r}: no such folder, not in Hugging Face's cache, and the download "
                f"failed ({first_line(missing)}). Put {CONFIG} and {WEIGHTS} into a folder and name it, or train a "
                "small autoencoder with `tdpm data autoencoder`"
            ) from None


def _read_config(folder: Path) -> Json:
    settings = read_record(folder / CONFIG, AutoencoderConfig, "name a folder of an autoencoder that diffusers saved")
    if (class_name := settings.get("_class_name")) not in CLASSES:
        raise InputError(f"{folder}: {CONFIG} is of a {class_name}; accepted: {', '.join(CLASSES)}")
    if missing := [key for key in ("latent_channels", "block_out_channels") if key not in settings]:
        raise InputError(f"{folder}: {CONFIG} is damaged, {missing[0]} is missing; save the autoencoder again")
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder}: {WEIGHTS} not found")
    return settings
