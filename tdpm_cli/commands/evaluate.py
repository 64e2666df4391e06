"""tdpm eval: how far samples lie from the data, under a name that says how it was measured."""

import json
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tdpm_cli import config as configuration
from tdpm_cli import parts
from tdpm_cli.assemble import read_data
from tdpm_cli.config import Config
from tdpm_cli.errors import InputError
from tdpm_cli.run import precision
from tdpm_cli.run.files import write_text, writing
from tdpm_cli.run.report import say, table
from tdpm_cli.scoring import KEEP, Scorer, batches_of

# Of samples.json, what scores depend on.
OF_SAMPLES = ("model", "model_sha256", "weights", "trained_images", "truncation", "sampler", "options", "steps",
              "scale", "seed", "labels", "nfe", "nfe_text")  # fmt: skip


def evaluate(
    images: Path,
    *,
    fid: bool = False,
    extras: Collection[str] = (),
    features: str | None = None,
    weights: Path | None = None,
    ref: Path | None = None,
    n: int | None = None,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Score the samples in `images` against the data they were trained on, or against `ref`; return the scores.

    `fid` asks for the Fréchet distance of images, the default for them; points get the sliced Wasserstein
    distance. `extras`, of `scoring.EXTRAS`, are measured beside it. `features` and `n` default to the preset's.
    Raises InputError for input that does not fit.
    """
    manifest = _manifest(images)
    config = configuration.from_dict(manifest["config"]) if manifest else None
    if config is None and ref is None:
        raise InputError(f"{images} has no samples.json that names its training data; give --ref PATH")
    is_image = config is None or len(config.space().raw_shape) == 3
    if ref is not None and not is_image:
        raise InputError(f"--ref {ref}, but {images} holds points: they are scored against the data they learned from")
    if fid and not is_image:
        raise InputError(f"--fid, but {images} holds points, not images; leave --fid out for their sliced Wasserstein")

    limit = n or (config.eval.n if config else 50_000)
    name = features or (config.eval.features if config else "inception")
    if is_image:
        parts.load("features", name, "--features")
    if json_file is not None:
        with writing(json_file):  # a place that cannot be written is better known before the work
            json_file.parent.mkdir(parents=True, exist_ok=True)
        if json_file.is_dir():
            raise InputError(f"--json {json_file}: it is a folder; name a file")
    samples = _samples(images, manifest, is_image, limit, config)
    if ref is not None:
        shape = config.space().raw_shape if config else _shape_of(ref)
        reference, ref_text = parts.load("data", "images")(ref, shape), str(ref)
    else:
        assert config is not None
        reference, config = read_data(config)
        ref_text = f"{config.data.name}{f' {config.path}' if config.path else ''}"

    count = min(len(samples), limit)
    extract = parts.load("features", name)(precision.device(), weights) if is_image else None
    scorer = Scorer(reference, extract, name if is_image else "", config.eval.batch if config else 64, extras)
    found = scorer.score(batches_of(samples, scorer.batch, limit), count)
    result: dict[str, Any] = {
        "images": str(images),
        "scores": {score.name: score.value for score in found},
        "standard_errors": {score.name: score.error for score in found if score.error is not None},
        "protocol": {
            "n": count,
            "reference": ref_text,
            "n_reference": len(reference),
            "features": None if extract is None else extract.protocol,
            "kept": KEEP if extras else None,
            "samples": {key: manifest.get(key) for key in OF_SAMPLES} if manifest else None,
            "versions": {
                package: version(package) for package in ("tdpm-cli", "torch", "numpy", "pillow", "clean-fid")
            },
        },
    }
    nfe = manifest.get("nfe_text", "–") if manifest else "–"
    table(
        f"tdpm eval {images}",
        [{"metric": score.name, "score": score.text, "n": f"{count:,}", "NFE": nfe,
          "reference": f"{ref_text} ({len(reference):,})"} for score in found],
    )  # fmt: skip
    if json_file:
        write_text(json_file, json.dumps(result, indent=1))
        say(f"written: {json_file}")
    say("next: tdpm export --format safetensors model.safetensors")
    return result


def _manifest(images: Path) -> dict[str, Any] | None:
    if not images.exists():
        raise InputError(f"{images}: no such folder; make samples with `tdpm sample --n 1000 {images}`")
    path = images / "samples.json"
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
    except ValueError as error:
        raise InputError(f"{path}: damaged ({error}); sample again, or give --ref PATH") from None
    return manifest if isinstance(manifest, dict) and "config" in manifest else None


def _samples(images: Path, manifest: Any, is_image: bool, n: int, config: Config | None) -> Any:
    """The first n samples, as a data set or an array."""
    if manifest and manifest.get("format") == "npz":
        path = images / "samples.npz"
        if not path.is_file():
            raise InputError(f"{path}: missing; run the same `tdpm sample` again, it continues")
        with np.load(path, allow_pickle=False) as file:
            raw = torch.from_numpy(file["arr_0"][:n])
        return raw.permute(0, 3, 1, 2) if is_image else raw
    shape = config.space().raw_shape if config else _shape_of(images)
    return parts.load("data", "images")(images, shape)


def _shape_of(path: Path) -> tuple[int, int, int]:
    """RGB at the size of the first image."""
    found = parts.load("data", "images")(path, (3, 1, 1))
    height, width = found.size_of(0)
    return 3, height, width
