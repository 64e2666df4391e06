"""DINOv2 features: of a network that learned without labels; FD by them agrees better with people than FID does.

Network: Oquab et al. 2023. As features: Stein et al. 2023, with their code layer6ai-labs/dgm-eval.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tdpm_cli.errors import InputError
from tdpm_cli.parts.features import sha256

__all__ = ["Dinov2"]

HUB = "facebook/dinov2-large"  # ViT-L/14, the choice of Stein et al.
SIDE = 224  # theirs too; the network's config says 518, the size that its pre-training ended with
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # ImageNet's, of RGB in 0..1

CONFIG, WEIGHTS = "config.json", "model.safetensors"  # of a folder that transformers saved


class Dinov2:
    """Images uint8 [B, C, H, W] → float32 [B, D]: the CLS token after the last layer norm, D = 1024 for "large".

    Images are resized to 224² (bicubic, antialiased), grey ones repeated to RGB. `weights` is a folder saved by
    transformers; None is HUB, from Hugging Face's cache or downloaded to there. Values are near dgm-eval's, not
    equal: it rounds resized images to uint8, and the authors' network interpolates positions with an offset of 0.1.
    """

    def __init__(self, device: torch.device, weights: Path | None = None) -> None:
        self.network, digest = pretrained("dinov2", "Dinov2Model", HUB, weights)
        self.network.to(device)
        self.device = device
        self.protocol = {
            "name": "dinov2",
            "resize": f"{SIDE} × {SIDE}, bicubic, antialiased (torch), clamped to 0..255",
            "weights_sha256": digest,
        }

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Tensor:
        """Features of one batch."""
        x = standardised(images.to(self.device), SIDE, MEAN, STD)
        features: Tensor = self.network(pixel_values=x).last_hidden_state[:, 0]
        return features


def standardised(images: Tensor, side: int, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """uint8 [B, C, H, W] → float32 [B, 3, side, side], resized in floating point; `mean`, `std` of RGB in 0..1."""
    x = images.float().expand(-1, 3, -1, -1)
    x = torch.nn.functional.interpolate(x, size=(side, side), mode="bicubic", antialias=True).clamp(0, 255)
    return (x / 255 - x.new_tensor(mean).view(3, 1, 1)) / x.new_tensor(std).view(3, 1, 1)


def pretrained(name: str, architecture: str, hub: str, weights: Path | None) -> tuple[Any, str]:
    """The network of the features `name`, a class of transformers, in float32; and the SHA-256 of its weights.

    It comes from the folder `weights`, or from `hub` where that is None; no code of theirs is run. Raises
    InputError for what cannot be loaded.
    """
    try:
        import transformers
    except ImportError:
        raise InputError(
            f"the features {name!r} are not installed; install them with: pip install 'tdpm-cli[transformers]'"
        ) from None
    folder = weights or cached(name, hub)
    for file in (CONFIG, WEIGHTS):
        if not (folder / file).is_file():
            raise InputError(f"{folder}: no {file} there; give a folder that {architecture} was saved to")
    # It reports pages of weights left out, such as CLIP's other half; what matters of that is an error below.
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    try:
        network, report = getattr(transformers, architecture).from_pretrained(
            folder,
            use_safetensors=True,
            local_files_only=True,
            attn_implementation="sdpa",  # or else the config may name one to download
            output_loading_info=True,
        )
    except Exception as error:  # no JSON, other shapes, a damaged file: each a class of its own
        raise InputError(f"{folder}: cannot be loaded as {architecture} ({first_line(error)})") from None
    # Of another type, or of some weights only, transformers makes a network all the same, and draws what is missing.
    kind, accepted = network.config.model_type, type(network.config).model_type
    if kind != accepted:
        raise InputError(f"{folder}: {CONFIG} is of a model of type {kind!r}; accepted: {accepted!r}")
    if missing := sorted(report["missing_keys"]):
        raise InputError(f"{folder}: {WEIGHTS} lacks {len(missing)} of the weights, such as {missing[0]}")
    return network.float().eval(), sha256(folder / WEIGHTS)


def cached(name: str, hub: str) -> Path:
    """The hub's model in Hugging Face's cache; downloaded where missing. Raises InputError if it fails."""
    from huggingface_hub import HfApi, snapshot_download, try_to_load_from_cache

    paths: list[Any] = [try_to_load_from_cache(hub, file) for file in (CONFIG, WEIGHTS)]
    if all(isinstance(path, str) for path in paths):
        return Path(paths[0]).parent
    try:
        HfApi().model_info(hub, timeout=10)  # without a network this fails soon; a download retries for minutes
        return Path(snapshot_download(hub, allow_patterns=[CONFIG, WEIGHTS]))
    except Exception as error:  # OSError, or of one of the HTTP libraries that versions of the hub's client use
        raise InputError(
            f"the features {name!r} need {hub}, which is not in Hugging Face's cache and could not be downloaded "
            f"({first_line(error)}). Give a local folder by --features {name}:PATH or --weights PATH, "
            "or run once with a network"
        ) from None


def first_line(error: Exception) -> str:
    """What an error says, in a line."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
