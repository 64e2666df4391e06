"""Open what can be scored: a folder, a zip, arrays, statistics, the data of a preset, or samples of a model."""

import json
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import torch

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config import external, load_config, load_stored_config
from tdpm_cli.config.constants import Start
from tdpm_cli.config.external import Confirmation
from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.data import dataset
from tdpm_cli.data.dataset import EncodedImages
from tdpm_cli.data.stored_images import SAMPLES_ARRAY, StoredImages, open_stored
from tdpm_cli.data.tensor_dataset import TensorDataset
from tdpm_cli.evaluation.examples import Examples, Input, Statistics
from tdpm_cli.evaluation.sources import ACCEPTED, check_source
from tdpm_cli.runtime import npz as arrays
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json, json_sha256, sha256
from tdpm_cli.sampling import build, output
from tdpm_cli.sampling.sample_batch import GeneratedDataset
from tdpm_cli.sampling.sample_store import MANIFEST
from tdpm_cli.sampling.settings import describe


@dataclass(frozen=True)
class SampledModel:
    """A model, how its samples are drawn, and their first seed."""

    loaded: build.LoadedModel
    settings: SampleConfig
    seed: int


def open_input(option: str, text: str) -> Input:
    """Open what `text` names. Raises InputError, naming `option`, for anything that cannot be scored."""
    check_source(option, text)
    path = Path(text)
    if path.is_dir():
        manifest = read_manifest(path)
        return _stored_examples(open_stored(path, option, manifest), path, text, manifest)
    if path.is_file():
        if path.suffix.lower() != ".zip" and {"mu", "sigma"} <= _array_names(path):
            return read_statistics(path)
        return _stored_examples(open_stored(path, option), path, text, None)
    try:
        return data_of(load_config(text))
    except InputError as error:
        raise InputError(f"{option} {text}: cannot open the data of this preset ({error}); use {option} PATH") from None


def data_of(config: Config, confirmation: Confirmation = external.NOTHING) -> Examples:
    """Open the training data of a config; of data stored as latents, the images.

    Raises InputError for images that only the latents name, unless they are confirmed.
    """
    data, config = build.open_dataset(config)
    if isinstance(data, EncodedImages):
        external.require(external.SOURCE, str(data.source), str(config.data.path), confirmation, "--ref PATH")
        data = data.images()
    section = config.data
    about = {
        "data": {"name": section.name, **section.options},
        "path": section.path and str(section.path),
        "split": section.options.get("split", "all"),
        "prepared": data.prepared,
    }
    text = f"{section.name}{f' {section.path}' if section.path else ''}"
    return Examples(text, data, tuple(build.build_space(config).raw_shape), cache(data.sha256), about,
                    list(data.class_names), on_disk=section.path is not None)  # fmt: skip


def training_data(config: Config, owner: str, confirmation: Confirmation, advice: str = "use --ref PATH") -> Examples:
    """Open the training data of `owner`, a model or samples. Raises InputError, ending in `advice`, if not found."""
    path = config.data.path
    if path and not path.exists():
        raise InputError(f"{owner}: training data not found: {path}; {advice}")
    return data_of(config, confirmation)


def samples_of(
    loaded: build.LoadedModel, settings: SampleConfig, seed: int, n: int, start: Start = "prior",
    data: dataset.Examples | None = None,
) -> Examples:  # fmt: skip
    """Return the examples 0..n-1 of a model, drawn when they are read; the start "data" adds noise to `data`."""
    components, manifest = loaded.components, describe(loaded, settings, seed, start) | {"start": start}
    return Examples(
        text=model_name(loaded),
        data=GeneratedDataset(components, settings, seed, n, start=start, data=data),
        shape=tuple(components.space.raw_shape),
        sha256=lambda: json_sha256([manifest, n]),
        classes=_class_names(manifest),
        manifest=manifest,
    )


def config_of(samples: Input, confirmation: Confirmation) -> Config | None:
    """Return the config of the model that drew these samples, or None if they have no manifest."""
    manifest = samples.manifest if isinstance(samples, Examples) else None
    if not manifest:
        return None
    try:
        return load_stored_config(manifest["config"], samples.text, confirmation)
    except InputError as error:
        raise InputError(f"{samples.text}, config in {MANIFEST}: {error}") from None


def model_name(loaded: build.LoadedModel) -> str:
    """Return the folder of the run, or the file of weights."""
    return str(run_of(loaded.source) or loaded.source)


def read_manifest(folder: Path) -> Json | None:
    """Read what `tdpm sample` wrote beside its samples; None if it wrote nothing. Raises InputError for damage."""
    advice = "sample again, or remove the file and use --ref PATH"
    manifest = output.read_manifest(folder / MANIFEST, advice)
    if "config" not in manifest:  # of another program
        return None
    output.require_keys(manifest, ("model", "seed"), folder / MANIFEST, advice)
    return manifest


def read_statistics(path: Path) -> Statistics:
    """Read `mu` [D] and `sigma` [D, D] as clean-fid, EDM and pytorch-fid write them. Raises InputError for others."""
    content = arrays.read(path, ["mu", "sigma", "protocol"])
    try:
        mean, covariance = (torch.from_numpy(np.asarray(content[key], np.float64)) for key in ("mu", "sigma"))
        protocol = json.loads(str(content["protocol"])) if "protocol" in content else None
    except (KeyError, ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: expected statistics as plain arrays `mu` and `sigma` ({error})") from None
    if not isinstance(protocol, dict) or not isinstance(protocol.get("features"), dict):
        protocol = None  # another tool's
    square = mean.ndim == 1 and covariance.shape == (len(mean), len(mean))
    if not square or not all(bool(x.isfinite().all()) for x in (mean, covariance)):
        raise InputError(
            f"{path}: `mu` is {list(mean.shape)} and `sigma` {list(covariance.shape)}; accepted: [D] and [D, D], all "
            "finite"
        )
    return Statistics(str(path), mean, covariance, cache(lambda: sha256(path)), protocol)


def _stored_examples(data: StoredImages | TensorDataset, path: Path, text: str, manifest: Json | None) -> Examples:
    """Return stored images or arrays; classes have the names of the model that drew them, if it has any."""
    on_disk = isinstance(data, StoredImages)
    where = path if on_disk or not manifest else path / SAMPLES_ARRAY
    return Examples(
        text=text,
        data=data,
        shape=data.shape,
        sha256=cache(data.sha256),
        about={"path": str(where), "split": "all", "prepared": data.prepared},
        classes=_class_names(manifest) or list(data.class_names),
        broken=data.broken if isinstance(data, StoredImages) else (),
        manifest=manifest,
        on_disk=on_disk,
        files=data.file_count if isinstance(data, StoredImages) else 0,
    )


def _class_names(manifest: Json | None) -> list[str]:
    return list(manifest["config"].get("condition", {}).get("names") or []) if manifest else []


def _array_names(path: Path) -> set[str]:
    try:
        return set(arrays.read_headers(path))
    except InputError as error:
        raise InputError(f"{error}; {ACCEPTED}") from None
