"""tdpm data matcher: a small network that matches images and captions, for a text score where CLIP cannot be had."""

import json
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import log_softmax, pad

from tdpm_cli.checkpoints import weights
from tdpm_cli.conditioning.captions.precompute import embed_captions
from tdpm_cli.conditioning.text import Text
from tdpm_cli.config.schema import Config
from tdpm_cli.config.types import RawCondition
from tdpm_cli.evaluation.features.image_text import FORMAT, Matcher
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import writable
from tdpm_cli.sampling.build import build_condition, build_space, open_dataset
from tdpm_cli.training.fit import fit

GROUPS = 2000  # images whose captions are kept, to choose among
MOST_SIDE = 64  # pixels at which the matcher looks at images
BATCH, RATE = 256, 1e-3  # images a step, and Adam's learning rate
NOISE, SHIFT = 0.1, 1 / 16  # largest deviation, of -1..1, and shift, of the side, of what it learns from


def matcher(config: Config, out: Path, images: int = 200_000) -> None:
    """Train a matcher for so many images on the images and captions that a config trains on; write it to `out`.

    The same command continues. Raises InputError where there are no captions, or no images.
    """
    if out.suffix != ".safetensors":
        raise InputError(f"{out}: the matcher is written as .safetensors; name the file so")
    writable("FILE", out)
    data, config = open_dataset(config)
    condition, shape = build_condition(config), build_space(config).raw_shape
    if not isinstance(condition, Text) or len(shape) != 3:
        raise InputError(f"the preset {config.preset!r} has no images with captions; use one such as cifar10-text")
    if condition.text_encoder() is not None:
        raise InputError(f"the preset {config.preset!r} has an encoder that is trained with it; the matcher needs one "
                         "that is ready: --set condition.text_encoder=minilm --set condition.dim=null")  # fmt: skip
    device, side = precision.device(), min(*shape[1:], MOST_SIDE)
    embed_captions(condition, data, device)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = Matcher(shape[0], side, condition.dim)
    network.to(device)

    def loss(raw: Tensor, given: RawCondition, generator: torch.Generator) -> tuple[Tensor, dict[str, Tensor]]:
        captions = condition.captions_of(given)
        texts = network.of_texts(condition.encode(given, generator)["pooled"].to(device))
        found = network.of_images(_varied(network.prepared(raw), generator))
        # Cosines of all pairs; images that share all their captions belong together (Radford et al. 2021, fig. 3).
        logits = found @ texts.T * network.sharpness.exp().clamp(max=100)
        belongs = torch.tensor([[one == other for other in captions] for one in captions], device=device).float()
        target = belongs / belongs.sum(1, keepdim=True)
        by_image, by_text = (-(target * log_softmax(logits, axis)).sum(axis).mean() for axis in (1, 0))
        accuracy = belongs.gather(1, logits.argmax(1)[:, None]).mean()
        return (by_image + by_text) / 2, {"accuracy in the batch": accuracy}

    plan = {"data": data.fingerprint(), "condition": config.to_dict()["condition"], "images": images}
    state = out.with_name(out.name + ".state")
    fit("match captions", network, loss, data, state, plan, images=images, batch=min(BATCH, len(data)), lr=RATE,
        flip=False, device=device)  # fmt: skip
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:GROUPS].tolist()
    groups = sorted(set(condition.captions_of(data.raw_condition(sorted(order)))))
    options = config.condition.options
    settings = {
        "channels": shape[0], "side": side, "dim": condition.dim, "encoder": options["text_encoder"],
        "weights": options["weights"], "tokens": condition.tokens, "captions": groups,
        "data": f"{config.data.name} {config.data.path or ''}".strip(), "images": images,
    }  # fmt: skip
    weights.write_weights(out, network, {"format": FORMAT, "settings": json.dumps(settings)})
    state.unlink(missing_ok=True)
    say(f"done: {out}\nnext: tdpm eval --fid --text image-text:{out} samples/")


def _varied(x: Tensor, generator: torch.Generator) -> Tensor:
    """Shifted by a few pixels, all alike, and with noise of a random strength: for generated images are not clean."""
    side, most = x.shape[-1], max(int(x.shape[-1] * SHIFT), 1)
    down, right = torch.randint(0, 2 * most + 1, (2,), generator=generator, device=x.device).tolist()
    x = pad(x, (most,) * 4, mode="replicate")[..., down : down + side, right : right + side]
    strength = NOISE * torch.rand(len(x), 1, 1, 1, generator=generator, device=x.device)
    return x + strength * torch.randn(x.shape, generator=generator, device=x.device)
