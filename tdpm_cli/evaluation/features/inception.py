"""Inception features as clean-fid computes them: the features that FID is defined by."""

import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from platformdirs import user_cache_path
from torch import Tensor

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256

__all__ = ["Inception"]

FILE = "inception-2015-12-05.pt"
SHA256 = "f58cb9b6ec323ed63459aa4fb441fe750cfe39fafad6da5cb504a16f19e958f4"  # of NVIDIA's file, by which FID is defined
SIDE = 299  # pixels that every image is resized to
CPU_BATCH = 8  # images at a time on a CPU, so that activations fit its caches


class Inception:
    """Images uint8 [B, C, H, W] → float32 [B, 2048], by clean-fid's "clean" mode (Parmar et al. 2022).

    Images are resized to 299² by PIL's bicubic filter in floating point. The TorchScript weights are `weights`, or the
    copy in the user's cache, which clean-fid downloads if it is missing. Only `weights` may differ from the published
    file; the protocol's name then contains their hash.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        path = weights or cached()
        if not path.is_file():
            raise InputError(f"--weights {path}: no such file; expected clean-fid's {FILE}")
        with warnings.catch_warnings():
            warnings.filterwarnings(
                "ignore", message="`torch.jit"
            )  # deprecated, but it is the format of the published file
            try:
                self.network = fused(torch.jit.load(str(path), map_location=device).eval().layers, device)
            except (RuntimeError, AttributeError) as error:
                reason = first_line(error)
                raise InputError(f"{path}: not clean-fid's TorchScript {FILE} ({reason}); download it again") from None
        self.device = device
        digest = sha256(path)
        self.protocol = {
            "name": "inception" if digest == SHA256 else f"inception-{digest[:8]}",
            "resize": "299 × 299, bicubic in floating point (clean-fid's clean mode)",
            "weights_sha256": digest,
        }

    @staticmethod
    def prepare(images: Tensor) -> Tensor:
        """Resize uint8 [B, C, H, W] to float32 [B, 3, 299, 299] in 0..255 with clean-fid's function."""
        from cleanfid.resize import build_resizer

        resize = build_resizer("clean")
        pixels = images.expand(-1, 3, -1, -1).permute(0, 2, 3, 1).numpy()
        return torch.from_numpy(np.stack([resize(image) for image in pixels])).permute(0, 3, 1, 2)

    @torch.inference_mode()
    def __call__(self, prepared: Tensor) -> Tensor:
        """Return the features of one batch of prepared images."""
        x = (prepared.to(self.device, memory_format=torch.channels_last) - 128) / 128
        size = CPU_BATCH if self.device.type == "cpu" else len(x)
        return torch.cat([self.network(padded(part, size))[: len(part)].flatten(1) for part in x.split(size)])


@torch.inference_mode()
def fused(layers: torch.jit.ScriptModule, device: torch.device) -> torch.jit.ScriptModule:
    """Fold batch norms into convolutions; on a CPU also compile oneDNN graphs, which halves the time.

    The graphs are those of CPU_BATCH images. Features differ by rounding alone.
    """
    network = torch.jit.freeze(layers.to(memory_format=torch.channels_last))
    if device.type == "cpu" and torch.backends.mkldnn.is_available():
        before = torch.jit.onednn_fusion_enabled()
        torch.jit.enable_onednn_fusion(True)
        try:
            for _ in range(2):  # the first call records shapes, the second builds graphs for them
                network(padded(torch.zeros(1, 3, SIDE, SIDE), CPU_BATCH).to(memory_format=torch.channels_last))
        finally:
            torch.jit.enable_onednn_fusion(before)
    return network


def padded(x: Tensor, size: int) -> Tensor:
    """Pad x [B, ...] with zeros to `size` examples."""
    return x if len(x) == size else torch.cat([x, x.new_zeros(size - len(x), *x.shape[1:])])


def cached() -> Path:
    """Return FID's weights in the user's cache, after a download if missing. Raises InputError if that fails."""
    folder = user_cache_path("tdpm")
    if not (folder / FILE).is_file():
        from cleanfid.downloads_helper import check_download_inception, inception_url

        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=folder) as part:
                downloaded = check_download_inception(part)
                verify(Path(downloaded), f"download of {inception_url}", "run again, or download it by other means")
                os.replace(downloaded, folder / FILE)
        except OSError as error:
            raise InputError(
                f"FID needs Inception's weights, but their download failed ({error}). Put {inception_url} at "
                f"{folder / FILE}, or name a copy with --weights PATH, or use --features efficientnet-lite0"
            ) from None
    verify(folder / FILE, str(folder / FILE), "delete it; the next run downloads it again")
    return folder / FILE


def verify(path: Path, label: str, advice: str) -> None:
    """Raise InputError for any file other than the one by which FID is defined."""
    if (digest := sha256(path)) != SHA256:
        raise InputError(f"{label}: SHA-256 is {digest}; the published {FILE} has {SHA256}; {advice}")
