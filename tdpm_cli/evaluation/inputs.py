"""What can be scored, or scored against: a folder, a zip, arrays, statistics, a preset's data, or a model itself."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config import load_config
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.data.dataset import EncodedImages
from tdpm_cli.data.stored_images import SAMPLES_ARRAY, StoredImages, open_stored
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.evaluation.sources import ACCEPTED, check_source
from tdpm_cli.runtime import npz as arrays
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.sample_batch import GeneratedDataset
from tdpm_cli.sampling.settings import describe

MANIFEST = "samples.json"


@dataclass(frozen=True)
class Examples:
    """Examples: `data` has a length, and data[indices] is (raw, cond).

    `classes` names the numbers in cond["label"]; `broken` are files left out; `manifest` is what `tdpm sample` wrote
    of them; `files` counts those found, sound or not; `on_disk` says that reading is work for other processes.
    """

    text: str
    data: Any
    shape: tuple[int, ...]
    sha256: Callable[[], str]
    about: dict[str, Any]
    classes: list[str] = field(default_factory=list)
    broken: tuple[str, ...] = ()
    manifest: dict[str, Any] | None = None
    on_disk: bool = False
    files: int = 0

    def __len__(self) -> int:
        return len(self.data)

    def among(self, indices: Sequence[int]) -> "Examples":
        """Those of these numbers alone."""
        digest = lambda: hashlib.sha256(f"{self.sha256()} {list(indices)}".encode()).hexdigest()
        if list(indices) == list(range(len(self))):
            return self
        return replace(self, text=f"{len(indices):,} of {self.text}", data=_Among(self.data, indices), sha256=digest)

    def some(self, n: int) -> "Examples":
        """n of them, drawn at random, for data often lie sorted by class; or all, where there are no more."""
        if n >= len(self):
            return self
        return self.among(torch.randperm(len(self), generator=torch.Generator().manual_seed(0))[:n].tolist())


@dataclass(frozen=True)
class _Among:
    data: Any
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, chosen: Sequence[int]) -> tuple[Tensor, dict[str, Tensor]]:
        raw, cond = self.data[[self.indices[k] for k in chosen]]
        return raw, cond


@dataclass(frozen=True)
class Statistics:
    """Mean [D] and covariance [D, D] of features, from a file; `protocol` is what the file says of them, if it does."""

    text: str
    mean: Tensor
    covariance: Tensor
    sha256: Callable[[], str]
    protocol: dict[str, Any] | None


Input = Examples | Statistics


def open_input(option: str, text: str) -> Input:
    """What `text` names. Raises InputError, naming `option`, for anything that cannot be scored."""
    check_source(option, text)
    path = Path(text)
    if path.is_dir():
        return _stored(open_stored(path, option, manifest := read_manifest(path)), path, text, manifest)
    if path.is_file():
        if path.suffix.lower() != ".zip" and {"mu", "sigma"} <= _keys(path):
            return read_statistics(path)
        return _stored(open_stored(path, option), path, text)
    try:
        return of_config(load_config(text))
    except InputError as error:
        raise InputError(f"{option} {text}: the data of that preset are not at hand ({error}); "
                         f"give their path as {option}") from None  # fmt: skip


def config_of(given: Input) -> Config | None:
    """The config of the model that drew these, where they say."""
    manifest = given.manifest if isinstance(given, Examples) else None
    return load_config(manifest["config"]) if manifest else None


def of_config(config: Config) -> Examples:
    """The data that a config trains on, brought to the shape of its space."""
    data, config = build.open_dataset(config)
    if isinstance(data, EncodedImages):
        data = data.images()
    about = {
        "data": {"name": config.data.name, **config.data.options},
        "path": config.data.path and str(config.data.path),
        "split": config.data.options.get("split", "all"),
        "prepared": data.prepared,
    }
    text = f"{config.data.name}{f' {config.data.path}' if config.data.path else ''}"
    return Examples(text, data, tuple(build.build_space(config).raw_shape), cache(data.sha256), about,
                    list(data.class_names), on_disk=config.data.path is not None)  # fmt: skip


def of_training(config: Config, owner: str, advice: str = "give --ref PATH") -> Examples:
    """The data that `owner`, a model or samples, learned from. Raises InputError where they are not there any more."""
    if config.data.path and not config.data.path.exists():
        raise InputError(
            f"{owner}: the training data that it names, {config.data.path}, are not there any more; {advice}"
        )
    return of_config(config)


def of_model(
    loaded: build.Loaded, settings: SampleConfig, seed: int, n: int, device: torch.device,
    start: Start = "prior", data: Any = None,
) -> Examples:  # fmt: skip
    """The examples 0..n-1 that a model gives under `seed`, from its prior or another `start` (see GeneratedDataset)."""
    made, manifest = loaded.components, describe(loaded, settings, seed) | {"start": start}
    if start != "prior":
        of_prior = made.model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale)
        manifest["nfe"] -= of_prior
        manifest["nfe_text"] = "0" + manifest["nfe_text"].removeprefix(str(of_prior))
    return Examples(
        text=model_name(loaded),
        data=GeneratedDataset(made, settings, seed, n, start=start, data=data),
        shape=tuple(made.space.raw_shape),
        sha256=lambda: hashlib.sha256(json.dumps([manifest, n], sort_keys=True).encode()).hexdigest(),
        about={},
        classes=list(getattr(made.condition, "names", [])),
        manifest=manifest,
    )


def model_name(loaded: build.Loaded) -> str:
    """The run's folder, or the file."""
    return str(run_of(loaded.source) or loaded.source)


def read_manifest(folder: Path) -> dict[str, Any] | None:
    """What `tdpm sample` wrote beside its samples, or None."""
    path = folder / MANIFEST
    if not path.is_file():
        return None
    try:
        manifest = json.loads(path.read_text())
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); sample again, or give --ref PATH") from None
    known = isinstance(manifest, dict) and isinstance(manifest.get("config"), dict)
    return manifest if known else None


def _stored(
    data: StoredImages | TensorDataset, path: Path, text: str, manifest: dict[str, Any] | None = None
) -> Examples:
    """Examples of stored images or arrays, with the classes that the model that drew them names."""
    names = manifest["config"].get("condition", {}).get("names", []) if manifest else []
    names = list(names or data.class_names)
    if isinstance(data, StoredImages):
        about = {"path": str(path), "split": "all", "prepared": data.prepared}
        return Examples(text, data, data.shape, cache(data.sha256), about, names, data.broken,
                        manifest, on_disk=True, files=data.file_count)  # fmt: skip
    if manifest:
        path = path / SAMPLES_ARRAY
    about = {"path": str(path), "split": "all", "prepared": data.prepared}
    shape = tuple(data[[0]][0].shape[1:])
    return Examples(text, data, shape, cache(data.sha256), about, names,
                    manifest=manifest)  # fmt: skip


def read_statistics(path: Path) -> Statistics:
    """`mu` [D] and `sigma` [D, D] as clean-fid, EDM and pytorch-fid write and read them."""
    found = arrays.read(path, ["mu", "sigma", "protocol"])
    try:
        mean, covariance = (torch.from_numpy(np.asarray(found[key], np.float64)) for key in ("mu", "sigma"))
        protocol = json.loads(str(found["protocol"])) if "protocol" in found else None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: not statistics of plain arrays `mu` and `sigma` ({error})") from None
    if not isinstance(protocol, dict) or not isinstance(protocol.get("features"), dict):
        protocol = None  # not ours
    if (
        mean.ndim != 1
        or covariance.shape != (len(mean), len(mean))
        or not all(bool(x.isfinite().all()) for x in (mean, covariance))
    ):
        raise InputError(f"{path}: `mu` is {list(mean.shape)} and `sigma` {list(covariance.shape)}; "
                         "accepted: [D] and [D, D], all finite")  # fmt: skip
    digest = cache(lambda: hashlib.sha256(path.read_bytes()).hexdigest())
    return Statistics(str(path), mean, covariance, digest, protocol)


def _keys(path: Path) -> set[str]:
    try:
        return set(arrays.told(path))
    except InputError as error:
        raise InputError(f"{error}; {ACCEPTED}") from None
