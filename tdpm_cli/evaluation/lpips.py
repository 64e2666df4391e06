"""LPIPS (Zhang et al. 2018): how different two images look, by the features of a network trained on ImageNet."""

import warnings
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.files import sha256

URL = "https://download.pytorch.org/models/alexnet-owt-7be5be79.pth"  # torchvision's; its end begins its SHA-256
SMALLEST = 31  # pixels, of what AlexNet takes
CHUNK = 64  # images at a time


class Perceptual:
    """LPIPS 0.1 on AlexNet, of pairs of uint8 images [n, C, H, W]: [n], 0 where they are equal.

    The weights of its linear layers come with the package `lpips`; those of AlexNet are torchvision's, where
    torchvision keeps them. Raises InputError, saying what to install or where to put the file, where it cannot be had.
    """

    def __init__(self, height: int, width: int, weights: Path | None = None) -> None:
        if min(height, width) < SMALLEST:
            raise InputError(f"images of {height}×{width} are too small for it: at least {SMALLEST}×{SMALLEST}")
        try:
            import lpips
        except ImportError:
            raise InputError("install it with: pip install 'tdpm-cli[lpips]'") from None
        path = weights or Path(torch.hub.get_dir()) / "checkpoints" / URL.rpartition("/")[2]
        with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
            warnings.simplefilter("ignore")  # its own, of torchvision's older interface
            self.network = lpips.LPIPS(net="alex", version="0.1", pnet_rand=True, verbose=False).eval()
        self.network.net.load_state_dict(_backbone(path, list(self.network.net.state_dict())))
        self.protocol = {"net": "alex", "version": "0.1", "backbone_sha256": sha256(path)}

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """The distance of each pair."""
        scaled = lambda raw: raw.float().expand(-1, 3, -1, -1) / 127.5 - 1
        return torch.cat([self.network(scaled(one), scaled(other)).flatten()
                          for one, other in zip(a.split(CHUNK), b.split(CHUNK), strict=True)])  # fmt: skip


def _backbone(path: Path, wanted: list[str]) -> dict[str, Tensor]:
    """AlexNet's convolutions under the names that lpips has for them: slice2.3.weight is features.3.weight."""
    if not path.is_file():
        raise InputError(f"AlexNet's weights are not there: put {URL} at {path}")
    theirs = {name: "features." + name.partition(".")[2] for name in wanted}
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        return {name: state[theirs[name]] for name in wanted}
    except Exception as error:  # torch.load raises anything on damaged files
        raise InputError(f"{path}: not AlexNet's weights ({first_line(error)}); put {URL} there") from None
