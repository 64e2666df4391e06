"""tdpm export: a trained model as a file, or a folder, that other runtimes take; verified by running it there."""

import shutil
from collections.abc import Callable
from importlib import import_module
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.checkpoints import weights
from tdpm_cli.config.constants import GRAPHS, export_format
from tdpm_cli.export.sampler_module import Whole, describe
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256, writing
from tdpm_cli.sampling import build
from tdpm_cli.sampling.settings import settings_of

MOST = 1e-3  # largest error, in x_0, of an export that is kept
LICENCE = "not stated"


def export(
    file: Path,
    model: Path | None = None,
    format: str | None = None,
    *,
    licence: str = LICENCE,
    rgb: bool = False,
    **sampling: Any,
) -> Path:
    """Write a run's averaged weights as `format` (by the suffix of `file` where None) to `file`; return it.

    "safetensors" holds the weights with the whole config; the others the whole sampler with the settings `sampling`,
    for z drawn outside. Each is run by its own runtime before it takes its place, and refused where x_0 differs from
    ours by more than 1e-3. Raises InputError for input that does not fit.
    """
    kind = export_format(file, format)
    loaded = build.load(model)
    if kind == "safetensors":
        if rgb or any(value is not None for value in sampling.values()):
            raise InputError("--format safetensors holds weights alone: leave --rgb and the sampling options out")
        error = _weights(loaded, file, licence)
    else:
        error = _graph(loaded, file, kind, licence, rgb, sampling)
    size = sum(path.stat().st_size for path in ([file] if file.is_file() else file.rglob("*")) if path.is_file())
    say(
        f"done: {loaded.source} → {file}, {size / 1e6:.3g} MB, {loaded.weights} at {loaded.seen / 1000:g} kimg; {error}"
    )
    return file


def _weights(loaded: build.Loaded, file: Path, licence: str) -> str:
    made = loaded.components
    head = build.header(made.config, loaded.weights, loaded.seen)
    weights.write_weights(file, made.model, head | {"licence": licence})
    again = weights.tensors_of(build.load(file).components.model)
    differing = [name for name, tensor in weights.tensors_of(made.model).items() if not tensor.equal(again[name])]
    assert not differing, f"{file}: {differing} did not survive"
    if made.config.prior.name == "torchscript":
        say(f"note: its prior is the program {made.model.prior.file}, which is code and not in {file}: where "
            "that is used, the program must be there, and trusted")  # fmt: skip
    return f"sha256 {sha256(file)[:16]}…\nnext: tdpm sample --model {file} --n 16 samples/"


def _graph(
    loaded: build.Loaded, file: Path, kind: str, licence: str, rgb: bool, sampling: dict[str, Any]
) -> str:  # fmt: skip
    """Write a sampler, and run it at batches other than the one it was traced with."""
    runtime = import_module(f"tdpm_cli.exporting.{GRAPHS[kind]}")
    whole = Whole(loaded, settings_of(loaded.components, precision="fp32", **sampling), rgb).eval()
    about = describe(loaded, whole.settings, licence)
    say(f"tracing {about['nfe']} network calls ({whole.settings.sampler}) …")
    part = file.with_suffix(f".part{file.suffix}")  # which keeps the suffix: runtimes look at it
    _remove(part)
    with writing(file):
        file.parent.mkdir(parents=True, exist_ok=True)
    try:
        runtime.write(whole, whole.inputs(3), part, about)
        error, levels = _compared(whole, runtime.run, part)
        if error > MOST:
            raise InputError(
                f"{file}: not written: x_0 differs from ours by {error:.1e} in its runtime, above {MOST:g}"
            )
        with writing(file):
            part.replace(file)
    finally:
        _remove(part)
    z = f"z [B, {about['z_size']}]" + (f", noise [B, {whole.draws}, …]" if whole.draws else "")
    inputs = ", ".join([z, *(key for key in whole.null)])
    fidelity = f"\nnext: {_fidelity(file, whole, about)}" if kind == "onnx" and not whole.draws else ""
    return f"takes {inputs}; largest error {error:.1e} in x_0, {levels} of 255 in images{fidelity}"


def _compared(whole: Whole, run: Callable[..., Any], part: Path) -> tuple[float, int]:
    """Largest errors in x_0, and in images, at batches of 1 and 5."""
    errors, levels = [], []
    for n in (1, 5):
        inputs = whole.inputs(n, seed=1)
        with torch.inference_mode():
            images, x_0 = whole(inputs)
        theirs, theirs_x_0 = run(part, inputs)
        errors.append(float((theirs_x_0 - x_0).abs().max()))
        if images.dtype == torch.uint8:
            levels.append(int((theirs.int() - images.int()).abs().max()))
    return max(errors), max(levels, default=0)


def _fidelity(file: Path, whole: Whole, about: dict[str, str]) -> str:
    note = "" if whole.rgb or whole.space.raw_shape[0] == 3 else "   (which takes RGB: export with --rgb)"
    return (f"fidelity --input1 {file} --input1-model-z-size {about['z_size']} --input1-model-z-type normal "
            f"--input1-model-num-samples 50000 --input2 IMAGES --fid{note}")  # fmt: skip


def _remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
