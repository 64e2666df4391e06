"""What several tests share: tiny presets, image files, TorchScript files, and an interruption."""

import dataclasses
import gzip
import io
import json
import struct
import warnings
import zipfile

import numpy as np
import torch
from PIL import Image

from tdpm_cli.config import presets
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.runtime.signals import Interruption


def tiny_preset(*assignments: str) -> dict:
    """Values of a tiny preset of points, which trains in a second."""
    small = [
        "data.count=512", "backbone.width=16", "backbone.blocks=1", "discriminator.width=16",
        "train.duration=256", "train.batch=32", "train.snapshot=64", "train.log=32", "train.precision=fp32",
        "sample.precision=fp32",
    ]  # fmt: skip
    return presets.override(presets.read_preset("toy-mixture"), [*small, *assignments])


def tiny_image_preset(*assignments: str) -> dict:
    """Values of a tiny preset of images."""
    small = [
        "backbone.channels=8", "backbone.mult=[1, 2]", "discriminator.channel_base=32", "train.duration=128",
        "train.batch=16", "train.snapshot=64", "train.log=16", "train.precision=fp32", "sample.precision=fp32",
        "train.cooldown=0.0",
    ]  # fmt: skip
    return presets.override(presets.read_preset("digits"), [*small, *assignments])


def to_pure_noise(steps=1000):
    """A schedule whose alpha_bar falls linearly to 0."""
    return Schedule(torch.linspace(1, 0, steps + 1, dtype=torch.float64))


def picture(k, size=(12, 10), mode="RGB"):
    """Image number k; all are different."""
    pixels = np.random.default_rng(k).integers(0, 256, (size[1], size[0], 3), np.uint8)
    return Image.fromarray(pixels).convert(mode)


def encoded(k, suffix="png", **options):
    buffer = io.BytesIO()
    picture(k, **options).save(buffer, format={"jpg": "JPEG", "png": "PNG", "webp": "WEBP"}[suffix])
    return buffer.getvalue()


def folder_of(place, names, **options):
    for k, name in enumerate(names):
        path = place / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(k, name.rpartition(".")[2], **options))
    return place


def zip_of(path, names, extra=()):
    with zipfile.ZipFile(path, "w") as archive:
        for k, name in enumerate(names):
            archive.writestr(name, encoded(k))
        for name, content in extra:
            archive.writestr(name, content)
    return path


def idx_of(place, images, labels=None, prefix="train", zipped=True):
    place.mkdir(exist_ok=True)
    arrays = {"images-idx3": images} | ({} if labels is None else {"labels-idx1": labels})
    for name, array in arrays.items():
        content = bytes([0, 0, 8, array.ndim]) + struct.pack(f">{array.ndim}I", *array.shape) + array.tobytes()
        path = place / f"{prefix}-{name}-ubyte{'.gz' if zipped else ''}"
        path.write_bytes(gzip.compress(content) if zipped else content)
    return place


def scripted(module, path):
    """Save a module as TorchScript."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        torch.jit.script(module).save(str(path))
    return path


class Stopped(Interruption):
    """A signal that came before the first piece was done."""

    def __enter__(self):
        self.number = 15
        return self

    def __exit__(self, *error):
        pass


def score(images=None, **options):
    """Evaluate with these options."""
    from tdpm_cli.evaluation.evaluate import evaluate
    from tdpm_cli.evaluation.options import EvaluateOptions

    return evaluate(images, EvaluateOptions(**options))


def run_sweep(steps, models, **options):
    """Sweep over these steps and models, with these options."""
    from tdpm_cli.evaluation.options import SweepOptions
    from tdpm_cli.evaluation.sweep import sweep

    return sweep(SweepOptions(steps=steps, models=models, **options))


def export(file, model, format=None, *, licence="not stated", rgb=False, **options):
    """Export a model with sampling options as keywords."""
    from tdpm_cli.export.export import ExportRequest
    from tdpm_cli.export.export import export as run

    return run(file, model, format, ExportRequest(licence, rgb, options))


def sample(out, n=None, model=None, **options):
    """Sample with options of `tdpm sample` and of sampling as keywords."""
    from tdpm_cli.sampling.options import SampleOptions
    from tdpm_cli.sampling.sample import sample as run

    run(out, split_options(SampleOptions, model=model, n=n, **options))


def with_keys_of_0_1_0(record):
    """A manifest or a row of a sweep as tdpm 0.1.0 wrote it."""
    from tdpm_cli.config.legacy import RECORD_KEYS

    old = {new: key for key, new in RECORD_KEYS.items()}
    return {old.get(key, key): value for key, value in record.items()}


def rewrite_with_keys_of_0_1_0(path):
    """Rewrite a manifest as tdpm 0.1.0 wrote it."""
    path.write_text(json.dumps(with_keys_of_0_1_0(json.loads(path.read_text()))))


def split_options(options_class, **options):
    """Make the options of a command: keywords that are no fields of the class override sampling options."""
    own = {field.name for field in dataclasses.fields(options_class)}
    sampling = {key: value for key, value in options.items() if key not in own}
    return options_class(sampling=sampling, **{key: value for key, value in options.items() if key in own})
