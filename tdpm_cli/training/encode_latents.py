"""`tdpm data encode`: compute the latents of images once, before training."""

import io
import json
import os
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from tdpm_cli.config import external
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.dataset_json import NAME as LABELS
from tdpm_cli.data.datasets.latents import ABOUT
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.console import ProgressBar, next_command, print_line
from tdpm_cli.runtime.destinations import MARK, check_file
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import ENTRY_TIME, writing
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.spaces.latents import Autoencoder
from tdpm_cli.training.autoencoder import open_images

ENCODED_TOGETHER = 64  # images
ZIP_HEADER, ZIP_HEADER_BYTES = b"PK\3\4", 30  # of an entry, before its name (APPNOTE.TXT 4.3.7)


def encode(source: Path, out: Path, autoencoder: str, side: int, overwrite: bool = False) -> None:
    """Encode the images of `source` and their mirror images into the zip `out`, with labels and captions.

    The zip holds means and standard deviations in float16. Run again to continue. Raises InputError for what does not
    fit, and Interrupted when a signal stops it.
    """
    if out.suffix != ".zip":
        raise InputError(f"{out}: latents are written to a zip; give a name that ends in .zip")
    check_file("DEST", out, [source, autoencoder], overwrite=overwrite)
    data, name = open_images(source, side)
    network, device = Autoencoder(autoencoder), devices.device()
    if side % network.factor:
        raise InputError(
            f"--resolution is {side}: it must be a multiple of {network.factor}, by which {autoencoder} reduces images"
        )
    located = str(source.resolve())
    about = {
        "shape": list(data[[0]][0].shape[1:]), "autoencoder": autoencoder, "autoencoder_sha256": network.sha256,
        "source": located, "data": name, "fingerprint": data.fingerprint(),
    }  # fmt: skip
    external.remember({external.SOURCE: located})
    part = out.with_name(out.name + ".part")
    done = _begin(part, about)
    with ProgressBar(f"encode {out.name}", len(data), done) as bar, Interruption() as interruption, writing(out):
        while done < len(data):
            indices = range(done, min(done + ENCODED_TOGETHER, len(data)))
            x = (data[indices][0].float() / 127.5 - 1).to(device)
            latents = torch.stack([torch.stack(network.encode(image), 1) for image in (x, x.flip(-1))], 1)
            _append(part, indices, latents.half().cpu().numpy())
            done = indices.stop
            bar.advance(len(indices))
            if interruption.number and done < len(data):
                raise Interrupted(
                    interruption.number, f"stopped; {part} is intact: run the same command to continue"
                )  # fmt: skip
        with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:
            archive.comment = MARK.encode()
            archive.writestr(zipfile.ZipInfo(LABELS, ENTRY_TIME), json.dumps(_labels_and_captions(data)))
        os.replace(part, out)
    print_line(f"done: {len(data):,} images and their mirror images in {out}")
    print_line(next_command(
        "tdpm train --preset emoji-64-latent --data", out, "--set", f"space.autoencoder={autoencoder}"
    ))  # fmt: skip


def _append(part: Path, indices: Sequence[int], latents: np.ndarray) -> None:
    """Add latents [image; mirrored or not; mean, deviation; channels; height; width] to a zip, one entry an image."""
    with zipfile.ZipFile(part, "a", zipfile.ZIP_STORED) as archive:  # a complete zip after every call
        for k, latent in zip(indices, latents, strict=True):
            buffer = io.BytesIO()
            np.save(buffer, latent)
            archive.writestr(zipfile.ZipInfo(_entry(k), ENTRY_TIME), buffer.getvalue())


def _begin(part: Path, about: Mapping[str, object]) -> int:
    """Return how many images the unfinished zip contains; start a new one if it is damaged or of other images.

    Raises InputError for another file of that name.
    """
    if os.path.lexists(part) and not _is_unfinished(part):
        raise InputError(f"{part}: found a file that tdpm did not write; move it away, or name another output")
    try:
        with zipfile.ZipFile(part) as archive:
            if json.loads(archive.read(ABOUT)) == about:
                return len(archive.namelist()) - 1 - (LABELS in archive.namelist())
        print_line(f"{part}: contains other images or latents of another autoencoder; starting again")
    except FileNotFoundError:
        pass
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        print_line(f"{part}: damaged; starting again")
    with writing(part), zipfile.ZipFile(part, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(zipfile.ZipInfo(ABOUT, ENTRY_TIME), json.dumps(about))
    return 0


def _is_unfinished(part: Path) -> bool:
    """Return whether a file begins as the unfinished zip does: damage by a kill is at its end."""
    if part.is_symlink() or not part.is_file():
        return False
    with part.open("rb") as file:
        beginning = file.read(ZIP_HEADER_BYTES + len(ABOUT))
    expected = ZIP_HEADER + beginning[len(ZIP_HEADER) : ZIP_HEADER_BYTES] + ABOUT.encode()
    return expected.startswith(beginning)


def _labels_and_captions(data: Dataset) -> dict[str, object]:
    raw_condition = data.raw_condition(range(len(data)))
    content: dict[str, object] = {"labels": None}
    if "label" in raw_condition:
        content["labels"] = [[_entry(k), int(label)] for k, label in enumerate(raw_condition["label"])]
        content["classes"] = data.class_names
    if "captions" in raw_condition:
        content["captions"] = [[_entry(k), list(texts)] for k, texts in enumerate(raw_condition["captions"])]
    return content


def _entry(k: int) -> str:
    return f"{k // 1000:05d}/{k:08d}.npy"
