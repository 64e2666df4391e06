"""tdpm export: a trained model as one file that needs nothing else."""

from pathlib import Path

from tdpm_cli import assemble
from tdpm_cli.errors import InputError
from tdpm_cli.run import weights
from tdpm_cli.run.report import say

FORMATS = ("safetensors",)


def export(file: Path, model: Path | None = None, format: str = "safetensors") -> Path:
    """Write the averaged weights of a run, with its whole config in the header, to `file`; return it.

    The file is read back and compared before the command ends. Raises InputError for input that does not fit.
    """
    if format not in FORMATS:
        raise InputError(f"--format {format}: accepted: {', '.join(FORMATS)}")
    if file.is_dir():
        raise InputError(f"{file}: it is a folder; name a file such as {file / 'model.safetensors'}")
    loaded = assemble.load(model or assemble.newest_run())
    made = loaded.assembly
    weights.write_weights(file, made.model, assemble.header(made.config, loaded.weights, loaded.seen))
    again = weights.state(assemble.load(file).assembly.model)
    differing = [name for name, tensor in weights.state(made.model).items() if not tensor.equal(again[name])]
    assert not differing, f"{file}: {differing} did not survive"
    say(
        f"done: {loaded.source} → {file}, {file.stat().st_size / 1e6:.3g} MB, {loaded.weights} at "
        f"{loaded.seen / 1000:g} kimg, sha256 {weights.sha256(file)[:16]}…\n"
        f"next: tdpm sample --model {file} --n 16 samples/"
    )
    return file
