"""What can be scored, or scored against: a folder, a zip, arrays, statistics, a preset's data, or a model itself."""

import hashlib
import io
import json
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cache, partial
from pathlib import Path, PurePath
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tdpm_cli.checkpoints.runs import run_of
from tdpm_cli.config import presets, schema
from tdpm_cli.config.constants import Start
from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.data.arrays import content_of
from tdpm_cli.data.datasets.npz import npz
from tdpm_cli.data.decode import bits_of, flatten, is_transparent, reason_of, to_tensor
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.engine.protocols import RawCondition, taken
from tdpm_cli.evaluation.sources import ACCEPTED, check_source
from tdpm_cli.runtime import npz as arrays
from tdpm_cli.runtime.console import Meter
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import Generated, describe

BROKEN = 0.001  # largest share of files that cannot be decoded; more of them are no accident
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
        manifest = read_manifest(path)
        if manifest and manifest.get("format") == "npz":
            return _arrays(path / "samples.npz", text, manifest)
        return stored(ImageFiles(path, option), text, manifest)
    if path.is_file():
        if path.suffix.lower() == ".zip":
            return stored(ImageFiles(path, option), text)
        return read_statistics(path) if {"mu", "sigma"} <= _keys(path) else _arrays(path, text)
    try:
        return of_config(schema.from_dict(presets.read_preset(text)))
    except InputError as error:
        raise InputError(f"{option} {text}: the data of that preset are not at hand ({error}); "
                         f"give their path as {option}") from None  # fmt: skip


def config_of(given: Input) -> Config | None:
    """The config of the model that drew these, where they say."""
    manifest = given.manifest if isinstance(given, Examples) else None
    return schema.from_dict(manifest["config"]) if manifest else None


def of_config(config: Config) -> Examples:
    """The data that a config trains on, brought to the shape of its space."""
    data, config = build.read_data(config)
    data = data.images() if hasattr(data, "images") else data  # latents are scored as the images that they are of
    about = {
        "data": {"name": config.data.name, **config.data.options},
        "path": config.path and str(config.path),
        "split": config.data.options.get("split", "all"),
        "prepared": getattr(data, "prepared", "as they are"),
    }
    text = f"{config.data.name}{f' {config.path}' if config.path else ''}"
    return Examples(text, data, tuple(config.space().raw_shape), cache(lambda: content_of(data)), about,
                    list(data.names), on_disk=config.path is not None)  # fmt: skip


def of_training(config: Config, owner: str, advice: str = "give --ref PATH") -> Examples:
    """The data that `owner`, a model or samples, learned from. Raises InputError where they are not there any more."""
    if config.path and not config.path.exists():
        raise InputError(f"{owner}: the training data that it names, {config.path}, are not there any more; {advice}")
    return of_config(config)


def of_model(
    loaded: build.Loaded, settings: SampleConfig, seed: int, n: int, device: torch.device,
    start: Start = "prior", data: Any = None,
) -> Examples:  # fmt: skip
    """The examples 0..n-1 that a model gives under `seed`, from its prior or another `start` (see Generated)."""
    made, manifest = loaded.components, describe(loaded, settings, seed) | {"start": start}
    if start != "prior":
        of_prior = made.model.nfe(0, prior_guidance_scale=settings.prior_guidance_scale)
        manifest["nfe"] -= of_prior
        manifest["nfe_text"] = "0" + manifest["nfe_text"].removeprefix(str(of_prior))
    return Examples(
        text=model_name(loaded),
        data=Generated(made, settings, seed, n, device, start, data),
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


def stored(files: ImageFiles, text: str, manifest: dict[str, Any] | None = None) -> Examples:
    """Image files as they lie: of one size, all grey or all colour, 8 bits, opaque.

    Looks at the head of every file first, so that what does not fit fails before the work. Files that are no
    images are left out, counted and named. Raises InputError for a mixture, and for too many of those.
    """
    kinds: list[tuple[str, tuple[int, int]] | str] = []
    with Meter(f"looking at {text}", len(files.names)) as meter, ThreadPoolExecutor() as pool:
        for kind in pool.map(partial(_head, files), range(len(files))):
            kinds.append(kind)
            meter.advance(1)
    broken = [f"{name}: {kind}" for name, kind in zip(files.names, kinds, strict=True) if isinstance(kind, str)]
    refuse_broken(text, broken, len(kinds))
    counts = Counter(kind for kind in kinds if not isinstance(kind, str))
    (colour, (width, height)), _ = counts.most_common(1)[0]
    if colour not in ("grey", "colour"):
        like_it = [name for name, kind in zip(files.names, kinds, strict=True) if kind[0] == colour]
        raise InputError(f"{files.option} {text}: {len(like_it):,} of {len(kinds):,} images are {colour}, such as "
                         f"{like_it[0]}; scores need opaque images of 8 bits: convert them, stating how")  # fmt: skip
    if len(counts) > 1:
        listed = "; ".join(
            f"{count:,} {kind[0]} of {kind[1][0]}×{kind[1][1]}, such as {_first(files, kinds, kind)}"
            for kind, count in counts.most_common(4)
        )
        raise InputError(f"{files.option} {text}: images of different kinds: {listed}. Bring them to one size and mode")
    sound = [k for k, kind in enumerate(kinds) if not isinstance(kind, str)]
    shape = (1 if colour == "grey" else 3, height, width)
    data = Stored(files, sound, shape, _drawn(files, manifest))
    about = {"path": str(files.path), "split": "all", "prepared": "as they lie (EXIF's orientation is not applied)"}
    return Examples(text, data, shape, cache(files.sha256), about, _classes(files.classes, manifest),
                    tuple(broken), manifest, on_disk=True, files=len(kinds))  # fmt: skip


class Stored:
    """Image files as they lie, uint8 [*shape]; `drawn` are the conditions that a model drew them from, if one did."""

    def __init__(
        self, files: ImageFiles, indices: Sequence[int], shape: tuple[int, int, int], drawn: RawCondition
    ) -> None:
        self.files, self.indices, self.shape, self._drawn = files, list(indices), shape, drawn

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, indices: Sequence[int]) -> tuple[Tensor, dict[str, Any]]:
        among = [self.indices[k] for k in indices]
        raw = torch.stack([self._read(k) for k in among])
        return raw, self.files.conditions_of(among) | taken(self._drawn, among)

    def _read(self, k: int) -> Tensor:
        return to_tensor(flatten(self.files.open(k, upright=False), self.shape[0]))


def refuse_broken(text: str, broken: Sequence[str], total: int) -> None:
    """Raise InputError where more than the share BROKEN of `total` files cannot be decoded."""
    if len(broken) > BROKEN * total:
        raise InputError(
            f"{text}: {len(broken):,} of {total:,} files cannot be decoded (accepted: {BROKEN:.1%}): "
            + "; ".join(broken[:5]) + (" …" if len(broken) > 5 else "") + ". Repair them or take them out"
        )  # fmt: skip


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


def _arrays(path: Path, text: str, manifest: dict[str, Any] | None = None) -> Examples:
    if manifest and not path.is_file():
        raise InputError(f"{path}: missing; run the same `tdpm sample` again, it continues")
    data = npz(path)
    about = {"path": str(path), "split": "all", "prepared": "as they are"}
    return Examples(text, data, tuple(data[[0]][0].shape[1:]), cache(lambda: content_of(data)), about,
                    _classes(data.names, manifest), manifest=manifest)  # fmt: skip


def _keys(path: Path) -> set[str]:
    try:
        return set(arrays.told(path))
    except InputError as error:
        raise InputError(f"{error}; {ACCEPTED}") from None


def _classes(own: Sequence[str], manifest: dict[str, Any] | None) -> list[str]:
    """The names of the classes: the model's, for samples; else what the files say."""
    names = manifest["config"].get("condition", {}).get("names", []) if manifest else []
    return list(names) or list(own)


def _drawn(files: ImageFiles, manifest: dict[str, Any] | None) -> dict[str, Any]:
    """The labels or captions that `tdpm sample` drew images of, whose files are named by number."""
    conditions = (manifest or {}).get("conditions", {})
    numbers = [PurePath(name).stem for name in files.names]
    count = min((len(values) for values in conditions.values()), default=0)
    if not conditions or not all(number.isdigit() and int(number) < count for number in numbers):
        return {}
    chosen = {key: [values[int(number)] for number in numbers] for key, values in conditions.items()}
    return {key: torch.tensor(values) if key == "label" else values for key, values in chosen.items()}


def _head(files: ImageFiles, k: int) -> tuple[str, tuple[int, int]] | str:
    """(what its pixels are, (width, height)) of a file, or why it is no image."""
    try:
        if not (content := files.content(k)):
            return "it is empty"
        with Image.open(io.BytesIO(content)) as image:
            bits = bits_of(content, image)
            return (f"of {bits} bits a channel" if bits > 8 else _pixels(image)), image.size
    except BadFile as error:
        return error.reason
    except Exception as error:  # decoders raise anything on damaged data
        return reason_of(error)


def _pixels(image: Image.Image) -> str:
    if is_transparent(image):
        return "transparent"
    if image.mode in ("1", "L"):
        return "grey"
    return "colour" if image.mode in ("RGB", "P", "CMYK", "YCbCr") else f"of mode {image.mode}"


def _first(files: ImageFiles, kinds: Sequence[object], kind: object) -> str:
    return files.names[kinds.index(kind)]
