"""tdpm data autoencoder, tdpm data encode: a small autoencoder of one's own, and images as its latents."""

import io
import json
import math
import os
import shutil
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.config import registry
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.dataset_json import NAME as LABELS
from tdpm_cli.data.datasets.latents import ABOUT
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime.console import Meter, say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import writable, writing
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.training.fit import fit

BATCH, RATE = 32, 1e-3  # images a step, and Adam's learning rate
KL = 1e-6  # weight of the divergence of latents from N(0, I), in units of the squared error (Rombach et al. 2022, G)
MEASURED = 1000  # images that scale and error are measured on
CHUNK = 64  # images that are encoded at a time
OLD = (1980, 1, 1, 0, 0, 0)  # the time that every entry of a zip carries


def autoencoder(
    out: Path, source: Path, side: int, channels: int = 4, factor: int = 4, width: int = 32, images: int = 200_000
) -> None:
    """Train an `AutoencoderKL` of diffusers on `source`, and save it to the folder `out` as diffusers does.

    It makes `channels` channels at 1 / `factor` of the size, from `width` channels at the first level, and is trained
    by absolute error, a little divergence, and nothing else. The same command continues. Raises InputError for what
    does not fit.
    """
    if out.exists():
        raise InputError(f"{out}: it exists; name another folder for the autoencoder, or move it away")
    if factor < 2 or factor & (factor - 1) or side % factor:
        raise InputError(
            f"--factor is {factor}: it must be a power of 2, at least 2, that divides --resolution, {side}"
        )
    data, device = _opened(source, side)[0], precision.device()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = _network(data[[0]][0].shape[1], channels, factor, width, side).to(device)

    def loss(raw: Tensor, given: RawCondition, generator: torch.Generator) -> tuple[Tensor, Mapping[str, Tensor]]:
        x = raw.float() / 127.5 - 1
        latents = network.encode(x).latent_dist
        draw = latents.mean + latents.std * torch.randn(latents.mean.shape, generator=generator, device=x.device)
        error = (network.decode(draw).sample.float() - x).abs().mean()
        return error + KL * latents.kl().float().mean() / x[0].numel(), {"error": error.detach()}

    plan = {"data": data.fingerprint(), "side": side, "channels": channels, "factor": factor, "width": width,
            "images": images}  # fmt: skip
    state = out.with_name(out.name + ".state")
    fit("autoencoder", network, loss, data, state, plan, images=images, batch=min(BATCH, len(data)), lr=RATE, flip=True,
        device=device)  # fmt: skip
    scale, quality = _measured(network, data, device)
    network.register_to_config(scaling_factor=scale)
    part = out.with_name(out.name + ".part")
    with writing(out):
        shutil.rmtree(part, ignore_errors=True)
        network.cpu().save_pretrained(part)
        os.replace(part, out)
        state.unlink(missing_ok=True)
    size = f"{channels}×{side // factor}×{side // factor}"
    say(f"done: {out}, latents {size}, scale {scale:.4g}, PSNR {quality:.1f} dB on images that it learned from\n"
        f"next: tdpm data encode {source} latents.zip --autoencoder {out} --resolution {side}")  # fmt: skip


def encode(source: Path, out: Path, autoencoder: str, side: int) -> None:
    """Encode the images of `source`, and their mirror images, into the zip `out`: means and standard deviations in
    float16, labels and captions. The same command continues. Raises InputError for what does not fit, and Interrupted
    when stopped.
    """
    from tdpm_cli.spaces.latents import Autoencoder

    if out.suffix != ".zip":
        raise InputError(f"{out}: the latents are a zip; name the file so")
    writable("DEST", out)
    data, name = _opened(source, side)
    coder, device = Autoencoder(autoencoder), precision.device()
    about = {
        "shape": list(data[[0]][0].shape[1:]), "autoencoder": autoencoder, "autoencoder_sha256": coder.sha256,
        "source": str(source.resolve()), "data": name, "fingerprint": data.fingerprint(),
    }  # fmt: skip
    if side % coder.factor:
        raise InputError(f"--resolution is {side}, but {autoencoder} makes maps of 1/{coder.factor}: it must divide")
    part = out.with_name(out.name + ".part")
    done = _begun(part, about)
    with Meter(f"encode {out.name}", len(data), done) as meter, Interruption() as interrupted, writing(out):
        while done < len(data):
            chosen = range(done, min(done + CHUNK, len(data)))
            x = (data[chosen][0].float() / 127.5 - 1).to(device)
            pairs = torch.stack([torch.stack(coder.encode(each), 1) for each in (x, x.flip(-1))], 1)
            with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:  # whole after every chunk
                for k, pair in zip(chosen, pairs.half().cpu().numpy(), strict=True):
                    buffer = io.BytesIO()
                    np.save(buffer, pair)  # [image, mirror image; mean, deviation; channels; height; width]
                    archive.writestr(zipfile.ZipInfo(_entry(k), OLD), buffer.getvalue())
            done = chosen.stop
            meter.advance(len(chosen))
            if interrupted.number and done < len(data):
                raise Interrupted(interrupted.number, f"stopped; {part} is sound, and the same command continues")
        with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:
            archive.writestr(zipfile.ZipInfo(LABELS, OLD), json.dumps(_labels_and_captions(data)))
        os.replace(part, out)
    say(f"done: {len(data):,} images and their mirror images in {out}\nnext: tdpm train --preset emoji-64-latent "
        f"--data {out} --set space.autoencoder={autoencoder}")  # fmt: skip


def _opened(source: Path, side: int) -> tuple[Any, str]:
    """The images at one size, square, and the part that reads them."""
    if not source.exists():
        raise InputError(f"{source}: no such file or folder; accepted: what `tdpm train --data` takes")
    name = registry.recognise(source, "images")
    return registry.load("dataset", name)(source, (3, side, side)), name


def _network(colours: int, channels: int, factor: int, width: int, side: int) -> Any:
    try:
        from diffusers import AutoencoderKL
    except ImportError:
        raise InputError("autoencoders need diffusers; install it with: pip install 'tdpm-cli[latents]'") from None
    levels = int(math.log2(factor)) + 1
    return AutoencoderKL(
        in_channels=colours, out_channels=colours, latent_channels=channels, sample_size=side, layers_per_block=1,
        block_out_channels=tuple(width * min(2**level, 4) for level in range(levels)), norm_num_groups=min(width, 8),
        down_block_types=("DownEncoderBlock2D",) * levels, up_block_types=("UpDecoderBlock2D",) * levels,
        mid_block_add_attention=False,
    )  # fmt: skip


@torch.no_grad()
def _measured(network: Any, data: Any, device: torch.device) -> tuple[float, float]:
    """1 / standard deviation of the latents, and the peak signal-to-noise ratio of reconstructions in dB."""
    order = torch.randperm(len(data), generator=torch.Generator().manual_seed(0))[:MEASURED].tolist()
    latents, errors = [], []
    for start in range(0, len(order), CHUNK):
        x = (data[sorted(order[start : start + CHUNK])][0].float() / 127.5 - 1).to(device)
        mean = network.encode(x).latent_dist.mean
        latents.append(mean.cpu())
        errors.append((network.decode(mean).sample.clamp(-1, 1) - x).square().flatten(1).mean(1).cpu())
    return 1 / float(torch.cat(latents).std()), 10 * math.log10(4 / float(torch.cat(errors).mean()))


def _begun(part: Path, about: dict[str, Any]) -> int:
    """How many images the unfinished zip holds; begins it, and anew where it was of something else or is damaged."""
    try:
        with zipfile.ZipFile(part) as archive:
            if json.loads(archive.read(ABOUT)) == about:
                return len(archive.namelist()) - 1 - (LABELS in archive.namelist())
        say(f"{part}: of other images or another autoencoder; beginning anew")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        say(f"{part}: damaged; beginning anew")
    with writing(part), zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT, OLD), json.dumps(about))
    return 0


def _labels_and_captions(data: Dataset) -> dict[str, Any]:
    given = data.raw_condition(range(len(data)))
    says: dict[str, Any] = {"labels": None}
    if "label" in given:
        says |= {
            "labels": [[_entry(k), int(label)] for k, label in enumerate(given["label"])],
            "classes": data.class_names,
        }
    if "captions" in given:
        says["captions"] = [[_entry(k), list(texts)] for k, texts in enumerate(given["captions"])]
    return says


def _entry(k: int) -> str:
    return f"{k // 1000:05d}/{k:08d}.npy"
