"""tdpm: train, sample, evaluate and export truncated diffusion probabilistic models.

    import tdpm_cli as tdpm
    model = tdpm.load("runs/digits")
    images = model.sample(16, steps=4, seed=0)      # uint8 [16, 1, 8, 8]

`Model` samples, encodes, decodes and edits; `Schedule`, `Denoiser`, `TDPM`, `samplers` and `invert` are the
mathematics. Importing this package imports nothing heavy; each name is imported on first use.
"""

from importlib import import_module
from types import SimpleNamespace
from typing import TYPE_CHECKING

__version__ = "0.2.0"

if TYPE_CHECKING:
    from tdpm_cli.config.external import Confirmation
    from tdpm_cli.engine.denoiser import Denoiser
    from tdpm_cli.engine.inversion import invert
    from tdpm_cli.engine.noise import Noise
    from tdpm_cli.engine.schedule import Schedule
    from tdpm_cli.engine.tdpm import TDPM
    from tdpm_cli.runtime.errors import InputError
    from tdpm_cli.sampling.model import Model, load

    samplers: SimpleNamespace

__all__ = ["TDPM", "Confirmation", "Denoiser", "InputError", "Model", "Noise", "Schedule", "invert", "load", "samplers"]

_HOMES = {
    "TDPM": "engine.tdpm",
    "Confirmation": "config.external",
    "Denoiser": "engine.denoiser",
    "InputError": "runtime.errors",
    "Model": "sampling.model",
    "Noise": "engine.noise",
    "Schedule": "engine.schedule",
    "invert": "engine.inversion",
    "load": "sampling.model",
}


def __getattr__(name: str) -> object:
    if name == "samplers":
        registry = import_module("tdpm_cli.config.registry")
        return SimpleNamespace(**{name: registry.load("sampler", name) for name in registry.names("sampler")})
    if name not in _HOMES:
        raise AttributeError(f"module 'tdpm_cli' has no attribute {name!r}")
    return getattr(import_module(f"tdpm_cli.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
