"""tdpm eval: how far samples lie from the data, under a name that says how it was measured."""

import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpm_cli import config as configuration
from tdpm_cli import parts
from tdpm_cli.assemble import read_data
from tdpm_cli.config import Config
from tdpm_cli.engine import scores
from tdpm_cli.errors import InputError
from tdpm_cli.run import precision
from tdpm_cli.run.files import write_text, writing
from tdpm_cli.run.report import Meter, say, table


def evaluate(
    images: Path,
    *,
    fid: bool = False,
    features: str | None = None,
    weights: Path | None = None,
    ref: Path | None = None,
    n: int | None = None,
    json_file: Path | None = None,
) -> dict[str, Any]:
    """Score the samples in `images` against the data they were trained on, or against `ref`; return the scores.

    `fid` asks for the Fréchet distance of images, the default for them; points get the sliced Wasserstein
    distance. `features` and `n` default to the preset's. Raises InputError for input that does not fit.
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
    if min(count, len(reference)) < 2:
        raise InputError(f"{count} samples and {len(reference)} references: a score needs at least 2 of each")
    result: dict[str, Any] = {"images": str(images), "n": count, "reference": ref_text,
                              "n_reference": len(reference)}  # fmt: skip
    if is_image:
        scorer = Scorer(reference, name, weights, config.eval.batch if config else 64)
        result |= scorer.score(_of(samples, scorer.batch, limit), count)
    else:
        data, _ = reference[range(len(reference))]
        result |= {"metric": "sliced W2", "score": scores.sliced_wasserstein(samples, data)}
    if manifest:
        result |= {key: manifest.get(key) for key in ("model_sha256", "weights", "sampler", "options", "steps", "scale",
                                                      "seed", "nfe", "nfe_text")}  # fmt: skip
    row = {"metric": result["metric"], "score": f"{result['score']:.4g}", "n": str(count),
           "NFE": str(result.get("nfe_text", "–")), "reference": f"{ref_text} ({len(reference):,})"}  # fmt: skip
    table(f"tdpm eval {images}", [row])
    if json_file:
        write_text(json_file, json.dumps(result, indent=1))
        say(f"written: {json_file}")
    say("next: tdpm export --format safetensors model.safetensors")
    return result


class Scorer:
    """Fréchet distances of samples to one reference, whose features are computed once."""

    def __init__(self, reference: Any, features: str, weights: Path | None = None, batch: int = 64) -> None:
        self.name, self.batch, self.device = features, batch, precision.device()
        self.extract = parts.load("features", features)(self.device, weights)
        self.size = len(reference)
        self._moments = scores.moments(self._features("reference", _of(reference, batch), self.size))

    def score(self, samples: Iterable[Tensor], count: int) -> dict[str, Any]:
        """Fréchet distance of `count` images in batches uint8 [B, C, H, W], and the name it has earned."""
        features = self._features("samples", samples, count)
        distance = scores.frechet(scores.moments(features), self._moments)
        return {"metric": metric_name(self.name, len(features)), "score": distance, "features": self.name}

    def _features(self, label: str, images: Iterable[Tensor], total: int) -> Tensor:
        found = []
        with Meter(f"features of {label}", total) as meter:
            for batch in images:
                found.append(self.extract(batch).cpu())
                meter.advance(len(batch))
        return torch.cat(found)


def metric_name(features: str, n: int) -> str:
    """ "FID" only for clean-fid's Inception and 50,000 images; fewer are named, and so are other features."""
    name = "FID" if features == "inception" else f"FD-{features}"
    if n >= 50_000:
        return name
    return f"{name}-{n // 1000}k" if n % 1000 == 0 else f"{name}-{n}"


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


def _of(data: Any, batch: int, limit: int | None = None) -> Iterator[Tensor]:
    """Batches of the first `limit` examples."""
    size = min(len(data), limit or len(data))
    for start in range(0, size, batch):
        if isinstance(data, Tensor):
            yield data[start : min(start + batch, size)]
        else:
            yield data[range(start, min(start + batch, size))][0]
