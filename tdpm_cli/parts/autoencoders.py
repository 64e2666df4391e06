"""Autoencoders of diffusers: `AutoencoderKL` and `VQModel`, from a folder or Hugging Face's cache, in float32."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.errors import InputError

CONFIG, WEIGHTS = "config.json", "diffusion_pytorch_model.safetensors"
KINDS = ("AutoencoderKL", "VQModel")


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
