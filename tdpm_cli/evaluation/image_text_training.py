"""tdpm data matcher: train a small network that matches images and captions, for a text score without CLIP."""

import json
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, pad

from tdpm_cli.checkpoints import weights
from tdpm_cli.conditioning.captions.precompute import embed_captions
from tdpm_cli.conditioning.text import Text
from tdpm_cli.config import external
from tdpm_cli.config.schema import Config
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.evaluation.features.image_text import FORMAT, Matcher
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.console import next_command, print_line
from tdpm_cli.runtime.destinations import check_file
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build_condition, build_space, open_dataset
from tdpm_cli.training.helper_network import HelperTask, train_helper

CAPTIONED_IMAGES = 2000  # images whose captions the file keeps, to draw wrong captions from
MAX_SIDE = 64  # pixels of the images that the network reads
BATCH, LEARNING_RATE = 256, 1e-3
MAX_LOGIT_SCALE = 100  # as in CLIP (Radford et al. 2021, section 2.5)
MAX_NOISE, MAX_SHIFT = 0.1, 1 / 16  # augmentation: deviation, of values in -1..1, and shift, as a share of the side


@dataclass(frozen=True)
class MatchingLoss:
    """Symmetric cross-entropy of all pairs in a batch, as CLIP's (Radford et al. 2021, fig. 3).

    Images that have all captions in common match each other's captions.
    """

    network: Matcher
    condition: Text
    device: torch.device

    def __call__(
        self, raw: Tensor, raw_condition: RawCondition, generator: torch.Generator
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the mean loss of a batch, and the share of images whose nearest caption matches."""
        captions = self.condition.captions_of(raw_condition)
        pooled = self.condition.encode(raw_condition, generator)["pooled"]
        texts = self.network.of_texts(pooled.to(self.device))
        images = self.network.of_images(augmented(self.network.prepared(raw), generator))
        logits = images @ texts.T * self.network.sharpness.exp().clamp(max=MAX_LOGIT_SCALE)
        matches = torch.tensor([[one == other for other in captions] for one in captions], device=self.device).float()
        target = matches / matches.sum(1, keepdim=True)
        by_image, by_text = (-(target * log_softmax(logits, axis)).sum(axis).mean() for axis in (1, 0))
        accuracy = matches.gather(1, logits.argmax(1)[:, None]).mean()
        return (by_image + by_text) / 2, {"accuracy in the batch": accuracy}


def matcher(config: Config, out: Path, images: int = 200_000, overwrite: bool = False) -> None:
    """Train a matcher for so many images on the images and captions of a config's dataset, and write it to `out`.

    Run again to continue an interrupted training. Raises InputError for data without images or captions.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: a matcher is written as .safetensors; give the file this suffix")
    check_file("FILE", out, [config.data.path], overwrite=overwrite)
    data, config = open_dataset(config)
    external.remember_config(config)
    condition, shape = _captions_of(config), build_space(config).raw_shape
    device = devices.device()
    embed_captions(condition, data, device)
    network = _new_network(shape, condition).to(device)
    plan = {"data": data.fingerprint(), "condition": config.to_dict()["condition"], "images": images}
    state = out.with_name(out.name + ".state")
    task = HelperTask("match captions", network, MatchingLoss(network, condition, device), state, plan, images,
                      min(BATCH, len(data)), LEARNING_RATE, flip=False)  # fmt: skip
    train_helper(task, data, device)
    settings = _settings(config, condition, network, data) | {"images": images}
    weights.write_weights(out, network, {"format": FORMAT, "settings": json.dumps(settings)})
    state.unlink(missing_ok=True)
    print_line(f"done: {out}\n" + next_command("tdpm eval --fid --text", f"image-text:{out}", "samples/"))


def augmented(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shift a batch by a few pixels and add noise of random strength, because generated images are not clean."""
    side, most = x.shape[-1], max(int(x.shape[-1] * MAX_SHIFT), 1)
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator, device=x.device).tolist()
    x = pad(x, (most,) * 4, mode="replicate")[..., down : down + side, right : right + side]
    strength = MAX_NOISE * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    return x + strength * torch.randn(x.shape, generator=generator, device=x.device)


def _captions_of(config: Config) -> Text:
    """Build the condition. Raises InputError unless it encodes the captions of images with a fixed text encoder."""
    condition = build_condition(config)
    if not isinstance(condition, Text) or len(build_space(config).raw_shape) != 3:
        raise InputError(f"the preset {config.preset!r} has no images with captions; use one such as cifar10-text")
    if condition.text_encoder() is not None:
        raise InputError(
            f"the preset {config.preset!r} trains its own text encoder; the matcher needs a pretrained one: "
            "--set condition.text_encoder=minilm --set condition.dim=null"
        )
    return condition


def _new_network(shape: tuple[int, ...], condition: Text) -> Matcher:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Matcher(shape[0], min(*shape[1:], MAX_SIDE), condition.dim)


def _settings(config: Config, condition: Text, network: Matcher, data: Dataset) -> dict[str, object]:
    """Return everything that the text score needs beside the weights."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:CAPTIONED_IMAGES].tolist()
    options = config.condition.options
    return {
        "channels": network.channels,
        "side": network.side,
        "dim": condition.dim,
        "encoder": options["text_encoder"],
        "weights": options["weights"],
        "tokens": condition.tokens,
        "captions": sorted(set(condition.captions_of(data.raw_condition(sorted(order))))),
        "data": f"{config.data.name} {config.data.path or ''}".strip(),
    }
