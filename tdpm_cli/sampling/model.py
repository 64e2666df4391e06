"""The Python API: a trained model to sample from, to encode images with, and to edit them."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import wraps
from pathlib import Path
from typing import Concatenate, ParamSpec, TypeVar

import torch
from torch import Tensor

from tdpm_cli.config.external import NOTHING, Confirmation
from tdpm_cli.config.schema import Config, SampleConfig
from tdpm_cli.engine.protocols import Cond
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.sampling import autoencoder, build
from tdpm_cli.sampling.arguments import argument_names, device_of, integer_of, labels_of, path_of
from tdpm_cli.sampling.conditions import named_condition
from tdpm_cli.sampling.sample_batch import BatchInput, in_batches, sample_in_batches, starting_point
from tdpm_cli.sampling.settings import nfe, settings_of

Labels = Sequence[str | int] | None
Parameters = ParamSpec("Parameters")
Result = TypeVar("Result")
Method = Callable[Concatenate["Model", Parameters], Result]


def _in_context(method: Method[Parameters, Result]) -> Method[Parameters, Result]:
    """Run a method in the context of its model."""

    @wraps(method)
    def run(model: "Model", *arguments: Parameters.args, **keywords: Parameters.kwargs) -> Result:
        with model._context():
            return method(model, *arguments, **keywords)

    return run


class Model:
    """A trained model; `tdpm.load` returns one.

    Images are uint8 [n, C, H, W] (points: float32 [n, dim]); x_t is float32 [n, *shape]. Every method accepts the
    sampling settings `steps`, `spacing`, `sampler`, `eta`, `guidance_scale`, `prior_guidance_scale`, `precision` and
    `batch`; the preset supplies the rest. `labels` are classes by number or name, or prompts for a model trained on
    captions, repeated in order up to n; in `sample` and `draw_x_T`, "data" draws classes as often as the training data
    have them. Arrays may be tensors or NumPy's. Every method raises InputError for arguments that do not fit the model.
    """

    def __init__(
        self, loaded: build.LoadedModel, device: torch.device,
        context: Callable[[], AbstractContextManager[None]] = argument_names,
    ) -> None:  # fmt: skip
        self._context = context  # of every method: names arguments in messages
        self.loaded, self.components, self.device = loaded, loaded.components, device
        self.space, self.condition = loaded.components.space, loaded.components.condition

    def __repr__(self) -> str:
        condition = self.components.config.condition
        classes = f" ({condition.options['classes']})" if "classes" in condition.options else ""
        raw = f"{'uint8' if len(self.space.raw_shape) == 3 else 'float32'} {list(self.space.raw_shape)}"
        return (
            f"Model({str(self.loaded.source)!r}, preset={self.config.preset!r}, raw={raw}, "
            f"condition={condition.name}{classes}, T={self.schedule.T}, weights={self.loaded.weights!r}, "
            f"trained_images={self.loaded.seen}, device={str(self.device)!r})"
        )

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

    @_in_context
    def nfe(self, **settings: object) -> int:
        """Return the network calls that one sample costs with these settings."""
        return nfe(self.tdpm, self.settings(**settings))

    @_in_context
    def settings(self, **settings: object) -> SampleConfig:
        """Return the preset's sampling settings, replaced by these where present."""
        return settings_of(self.components, **settings)

    @_in_context
    def sample(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: object) -> Tensor:
        """Return samples `first` .. `first` + n - 1 of `seed`: those that `tdpm sample` writes, for any `batch`."""
        return sample_in_batches(self.components, self.settings(**settings), self._input(n, seed, first, labels))

    @_in_context
    def draw_x_T(self, n: int, *, seed: int = 0, first: int = 0, labels: Labels = None, **settings: object) -> Tensor:
        """Return the x_T [n, *shape] that the prior draws for those samples."""
        chosen, examples = self.settings(**settings), self._input(n, seed, first, labels)
        call = lambda part: starting_point(self.components, chosen, examples.part(part)).x_T
        return in_batches(len(examples.indices), chosen.batch, call)

    @_in_context
    def cond(self, n: int, labels: Labels) -> Cond:
        """Return n encoded conditions, `labels` repeated in order; n times the condition "nothing" without labels."""
        n, texts = integer_of("n", n, 1), labels_of(labels)
        if texts is None:
            return self.condition.null(n)
        return self.condition.encode(self.condition.parse(texts, n))

    # The model as an autoencoder; autoencoder.py defines these methods.
    noised = _in_context(autoencoder.noised)
    encode = _in_context(autoencoder.encode)
    decode = _in_context(autoencoder.decode)
    edit = _in_context(autoencoder.edit)
    interpolate = _in_context(autoencoder.interpolate)
    interpolate_z = _in_context(autoencoder.interpolate_z)
    logits = _in_context(autoencoder.logits)

    def _input(self, n: int, seed: int, first: int, labels: Labels) -> BatchInput:
        n, seed, first = integer_of("n", n, 1), integer_of("seed", seed, 0), integer_of("first", first, 0)
        texts, indices = labels_of(labels), range(first, first + n)
        raw = None if texts is None else named_condition(self.condition, texts, seed, indices)
        return BatchInput(seed, indices, raw_condition=raw)


def load(
    source: str | Path | None = None,
    device: str | torch.device | None = None,
    *,
    external: Confirmation = NOTHING,
) -> Model:
    """Load the model of a run, a checkpoint or an exported file; of the newest run under runs/ by default.

    Executes no code from the file. It may name other files, and names on a hub: those that were not named to tdpm on
    this machine before are opened only if `external` confirms them. Raises InputError if `source` holds no model, and
    for a device that does not work.
    """
    with argument_names():
        chosen = device_of(device)
        return Model(build.load_model(path_of(source), chosen, external), chosen)


def load_for_command(source: str | Path | None, external: Confirmation) -> Model:
    """Load a model whose messages name the options of the command line."""
    chosen = devices.device()
    return Model(build.load_model(None if source is None else Path(source), chosen, external), chosen, nullcontext)
