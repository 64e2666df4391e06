"""The Python API: a trained model to sample from, to encode images with, and to edit them."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.sampling import autoencoder, build
from tdpm_cli.sampling.sample_batch import BatchInput, in_batches, sample_in_batches, starting_point
from tdpm_cli.sampling.settings import nfe, settings_of

Labels = Sequence[str | int] | None


class Model:
    """A trained model; `tdpm.load` returns one.

    Images are uint8 [n, C, H, W] (points: float32 [n, dim]); x_t is float32 [n, *shape]. Every method accepts the
    sampling settings `steps`, `spacing`, `sampler`, `eta`, `guidance_scale`, `prior_guidance_scale`, `precision` and
    `batch`; the preset supplies the rest. `labels` are classes by number or name, or prompts for a model trained on
    captions, repeated in order up to n. Every method raises InputError for arguments that do not fit the model.
    """

    def __init__(self, loaded: build.LoadedModel, device: torch.device) -> None:
        self.loaded, self.components, self.device = loaded, loaded.components, device
        self.space, self.condition = loaded.components.space, loaded.components.condition

    @property
    def config(self) -> Config:
        """The config that the model was trained with."""
        return self.components.config

    @property
    def tdpm(self) -> TDPM:
        """The networks: denoiser and prior."""
        return self.components.model

    @property
    def schedule(self) -> Schedule:
        """The noise levels t = 0..T."""
        return self.tdpm.denoiser.schedule

    def nfe(self, **settings: object) -> int:
        """Return the network calls that one sample costs with these settings."""
        return nfe(self.tdpm, self.settings(**settings))

    def settings(self, **settings: object) -> SampleConfig:
        """Return the preset's sampling settings, replaced by these where present."""
        return settings_of(self.components, **settings)

    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: object) -> Tensor:
        """Return samples `first` .. `first` + n - 1 of `seed`: those that `tdpm sample` writes, for any `batch`."""
        return sample_in_batches(self.components, self.settings(**settings), self._input(n, seed, first, labels))

    def draw_x_T(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: object) -> Tensor:
        """Return the x_T [n, *shape] that the prior draws for those samples."""
        chosen, examples = self.settings(**settings), self._input(n, seed, first, labels)
        call = lambda part: starting_point(self.components, chosen, examples.part(part)).x_T
        return in_batches(n, chosen.batch, call)

    def cond(self, n: int, labels: Labels) -> Cond:
        """Return n encoded conditions, `labels` repeated in order; n times the condition "nothing" without labels."""
        if labels is None:
            return self.condition.null(n)
        return self.condition.encode(self.condition.parse([str(label) for label in labels], n))

    # The model as an autoencoder; autoencoder.py defines these methods.
    noised = autoencoder.noised
    encode = autoencoder.encode
    decode = autoencoder.decode
    edit = autoencoder.edit
    interpolate = autoencoder.interpolate
    interpolate_z = autoencoder.interpolate_z
    logits = autoencoder.logits

    def _input(self, n: int, seed: int, first: int, labels: Labels) -> BatchInput:
        cond = None if labels is None else self.cond(n, labels)
        return BatchInput(seed, range(first, first + n), cond=cond)


def load(source: str | Path | None = None, device: str | torch.device | None = None) -> Model:
    """Load the model of a run, a checkpoint or an exported file; of the newest run under runs/ by default.

    Executes no code from the file. Raises InputError if `source` holds no model.
    """
    chosen = devices.device() if device is None else torch.device(device)
    return Model(build.load_model(None if source is None else Path(source), chosen), chosen)
