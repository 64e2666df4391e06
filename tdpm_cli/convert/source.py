"""What `--init` names: a run or file of tdpm, or IMPORTER:PATH for weights of another project. Imports no PyTorch."""

from dataclasses import dataclass
from pathlib import Path

from tdpm_cli.config import registry
from tdpm_cli.runtime.errors import InputError


@dataclass(frozen=True)
class InitSource:
    """The path of trained weights, and the importer that reads them; None for weights of tdpm."""

    importer: str | None
    path: Path


def init_source(init: str) -> InitSource:
    """Parse the value of `--init`. Raises InputError if it names neither an importer nor an existing path."""
    prefix, colon, path = init.partition(":")
    if colon and prefix in {*registry.names("importer"), *registry.aliases("importer")}:
        return InitSource(registry.resolve("importer", prefix), Path(path))
    if not Path(init).exists():
        raise InputError(
            f"--init {init}: no such run or file; accepted: a run or a file of tdpm, or {accepted_prefixes()}"
        )
    return InitSource(None, Path(init))


def accepted_prefixes() -> str:
    """List the importers as a message shows them."""
    return ", ".join(f"{name}:PATH" for name in registry.names("importer"))
