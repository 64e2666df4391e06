"""Which target a file is exported to, by `--format` or by the suffix of the file. Imports no PyTorch."""

from pathlib import Path

from tdpm_cli.config import registry
from tdpm_cli.runtime.errors import InputError, one_of


def export_target(file: Path, format: str | None) -> str:
    """Return the name of the target. Raises InputError for an unknown one and for a path that it cannot write."""
    suffixes = target_suffixes()
    name = format if format is not None else suffixes.get(file.suffix)
    if name is None and not file.is_dir():
        raise InputError(f"{file}: its suffix {file.suffix!r} names no format; accepted: "
                         f"{', '.join(suffixes)}, or --format {' | '.join(registry.names('export'))}")  # fmt: skip
    if name is not None:
        one_of("--format", name, registry.names("export"))
        if name not in suffixes.values() and file.exists():
            raise InputError(f"{file}: it exists, but --format {name} writes a new folder; name another path")
    if name is None or file.is_dir():
        raise InputError(f"{file}: it is a folder; name a file such as {file / 'model.safetensors'}")
    return name


def target_suffixes() -> dict[str, str]:
    """Return the targets that write a single file, by its suffix."""
    suffixes: dict[str, str | None] = {
        name: registry.constant("export", name, "SUFFIX", None) for name in registry.names("export")
    }
    return {suffix: name for name, suffix in suffixes.items() if suffix}
