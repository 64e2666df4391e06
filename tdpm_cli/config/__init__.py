"""Configuration: presets, their schema, and the registry of components. Imports no PyTorch."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tdpm_cli.config.schema import Config, load_config, load_stored_config

__all__ = ["Config", "load_config", "load_stored_config"]


def __getattr__(name: str) -> object:
    """Import pydantic only when a config is loaded: `tdpm --help` needs none."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from tdpm_cli.config import schema

    return getattr(schema, name)
