"""LPIPS (Zhang et al. 2018): how different two images look, by the features of a network trained on ImageNet."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # of torchvision; contains part of its SHA-256
MIN_SIDE = 31  # pixels that AlexNet needs
BATCH = 64  # pairs compared at a time


class Perceptual:
    """LPIPS 0.1 on AlexNet, of pairs of images uint8 [n, C, H, W]: [n], 0 for equal images.

    The package `lpips` contains the weights of its linear layers; AlexNet's are torchvision's file in PyTorch's hub
    folder. Raises InputError, which names what to install or where to put the file, if either is missing.
    """

    def __init__(self, height: int, width: int, weights: Path | None = None) -> None:
        if min(height, width) < MIN_SIDE:
            raise InputError(f"images of {height}×{width} are too small; LPIPS needs {MIN_SIDE}×{MIN_SIDE}")
        try:
            import lpips
        except ImportError:
            raise InputError("the package lpips is missing; install it with: pip install 'tdpm-cli[lpips]'") from None
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # lpips uses an older interface of torchvision
            self.network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval()
        self.network.net.load_state_dict(_backbone(path, list(self.network.net.state_dict())))
        self.protocol = {"net": "alex", "version": "0.1", "backbone_sha256": sha256(path)}

    @torch.no_grad()
    def __call__(self, first: Tensor, second: Tensor) -> Tensor:
        """Return the distance [n] of each pair."""
        scaled = lambda raw: raw.float().expand(-1, 3, -1, -1) / 127.5 - 1
        pairs = zip(first.split(BATCH), second.split(BATCH), strict=True)
        return torch.cat([self.network(scaled(one), scaled(other)).flatten() for one, other in pairs])


def _backbone(path: Path, names: list[str]) -> dict[str, Tensor]:
    """Read AlexNet's convolutions under lpips's names for them: slice2.3.weight is features.3.weight."""
    if not path.is_file():
        raise InputError(f"AlexNet's weights not found; put {URL} at {path}")
    sources = {name: "features." + name.partition(".")[2] for name in names}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: state[sources[name]] for name in names}
    except Exception as error:  # torch.load raises anything on damaged files
        raise InputError(f"{path}: not AlexNet's weights ({first_line(error)}); put {URL} there") from None
