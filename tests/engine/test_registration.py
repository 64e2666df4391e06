"""A loss, objective, prior or sampler is one file: each is registered here from a folder, and used end to end."""

import numpy as np
import pytest

from tdpm_cli.config import load_config, registry
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import load_model
from tdpm_cli.training.train import train

HINGE = '''
"""Hinge loss. Lim and Ye 2017."""
from torch import Tensor
from torch.nn.functional import relu

__all__ = ["Hinge"]


class Hinge:
    """Hinge of both logits."""

    prior_uses_real = False

    def prior(self, fake: Tensor, real: Tensor) -> Tensor:
        return -fake

    def discriminator(self, fake: Tensor, real: Tensor) -> Tensor:
        return relu(1 + fake) + relu(1 - real)
'''

DENOISING = '''
"""The denoiser alone."""
from tdpm_cli.engine.phase import Phase, PhaseSettings
from tdpm_cli.engine.phases import denoiser_phase
from tdpm_cli.engine.protocols import Components

__all__ = ["DenoisingObjective"]


class DenoisingObjective:
    """Only the denoising loss."""

    needs_discriminator = False
    needs_encoder = False
    needs_own_prior = False

    def phases(self, components: Components, settings: PhaseSettings) -> list[Phase]:
        return [denoiser_phase(components, settings)]
'''

SCALED = '''
"""Noise of a learned scale."""
import torch
from torch import nn

from tdpm_cli.config.types import PositiveFloat

__all__ = ["Scaled"]


class Scaled(nn.Module):
    """x_T = scale · z."""

    nfe = 0
    has_generator = False
    learns = True
    makes_x_0 = False
    shares = False

    def __init__(self, shape, sizes, schedule, network, *, scale: PositiveFloat = 1.0):
        super().__init__()
        self.z_shape = tuple(shape)
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, z, **cond):
        return self.scale * z

    def start(self, network):
        """Do nothing."""
'''

DIRECT = '''
"""One step of x_0 prediction."""
import torch

from tdpm_cli.config.types import NonNegative

__all__ = ["direct"]

ALIASES = ("one-call",)


def direct(denoise, x_T, times, schedule, noise, *, shift: NonNegative = 0.0, **cond):
    """The first estimate of x_0, shifted."""
    return denoise(x_T, torch.full((x_T.shape[0],), times[0], device=x_T.device), **cond) + shift
'''


def last_line(run):
    return (run / "log.jsonl").read_text().splitlines()[-1]


def test_a_loss_of_one_file_trains(add_component, tiny, tmp_path):
    with pytest.raises(InputError, match=r"adversarial\.loss"):
        load_config(tiny("adversarial.loss=hinge"))
    add_component("loss", "hinge", HINGE)
    config = load_config(tiny("adversarial.loss=hinge", "train.duration=64"))
    run = train(config, tmp_path / "runs", "run")
    assert "loss/discriminator" in last_line(run)
    assert load_model(run).components.config.adversarial.loss == "hinge"


def test_an_objective_of_one_file_trains(add_component, tiny, tmp_path):
    with pytest.raises(InputError, match=r"train\.objective"):
        load_config(tiny("train.objective=denoising"))
    add_component("objective", "denoising", DENOISING)
    run = train(load_config(tiny("train.objective=denoising", "train.duration=64")), tmp_path / "runs", "run")
    assert "loss/denoise" in last_line(run)
    assert "loss/prior" not in last_line(run)


def test_a_prior_of_one_file_trains_with_its_options(add_component, tiny, tmp_path):
    add_component("prior", "scaled", SCALED)
    run = train(
        load_config(tiny("prior.name=scaled", "prior.scale=3.0", "train.duration=64")), tmp_path / "runs", "run"
    )
    assert "loss/prior" in last_line(run)
    scale = float(load_model(run).components.model.prior.scale)
    assert scale != 3.0
    assert abs(scale - 3.0) < 1


def test_a_sampler_of_one_file_samples_with_its_options_and_alias(add_component, tiny, tmp_path):
    add_component("sampler", "direct", DIRECT)
    assert registry.resolve("sampler", "one-call") == "direct"
    assert registry.summary("sampler", "direct") == "One step of x_0 prediction."
    plain = tiny("train.duration=64", "sample.sampler=direct", "sample.options={shift: 100}", "sample.steps=1")
    run = train(load_config(plain), tmp_path / "runs", "run")
    import tdpm_cli

    raw = tdpm_cli.load(run).sample(4)
    assert float(raw.mean()) > 50
    assert np.isfinite(raw.numpy()).all()
    with pytest.raises(InputError, match="shift"):
        load_config(tiny("sample.sampler=direct", "sample.options={shift: -1}"))
