"""Training in stages: the likelihood's mathematics, who learns when, exact resume, and stages that do not fit."""

import json
import math

import pytest
import torch
from helpers import tiny_image_preset
from torch import nn

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import load_config
from tdpm_cli.config.settings import TrainConfig
from tdpm_cli.engine.batch import Batch
from tdpm_cli.engine.terms import likelihood_term
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build
from tdpm_cli.training.callbacks import beside_bar
from tdpm_cli.training.stages import stages_of
from tdpm_cli.training.state import TrainerState
from tdpm_cli.training.train import train

STAGES = [
    {"objective": "likelihood", "duration": 64, "prior_betas": [0.9, 0.99], "cooldown": 0.5},
    {"objective": "adversarial", "duration": 64},
    {"objective": "denoise", "duration": 64, "denoiser_lr": 1e-3},
]
LIGHT = {
    "backbone": {"name": "light-unet", "channels": [8, 16], "embedding": 16},
    "prior": {"name": "light", "latent": 4, "channels": [8], "embedding": 16},
    "discriminator": {"name": "light", "channels": [8, 8]},
    "encoder": {"name": "light", "channels": [8, 8]},
    "denoiser": {"prediction": "v"},
}


def staged(*assignments, stages=STAGES, **sections):
    """The values of a tiny preset of light networks that is trained in stages."""
    plain = {**tiny_image_preset("train.duration=192", "train.snapshot=32"), **LIGHT, **sections}
    plain["train"] = {**plain["train"], "stages": stages}
    return load_config(plain, assignments)


def weights_at(run, seen):
    """The weights in training of a run's checkpoint."""
    folder = run / "checkpoints" / f"{seen:09d}"
    return weights.read_weights(folder / "model.safetensors")[0]


def changed(before, after):
    """The networks whose weights differ: "prior", "denoiser"."""
    return {key.partition(".")[0] for key in before if not torch.equal(before[key], after[key])}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    return train(staged("train.keep=10"), tmp_path_factory.mktemp("staged"), "run")


def test_each_stage_trains_its_own_networks(run):
    assert changed(weights_at(run, 32), weights_at(run, 64)) == {"prior"}
    assert changed(weights_at(run, 96), weights_at(run, 128)) == {"prior"}
    assert changed(weights_at(run, 160), weights_at(run, 192)) == {"denoiser"}


@pytest.mark.parametrize("seen", [32, 64, 96, 128])
def test_resuming_in_and_between_stages_is_exact(run, seen, tmp_path):
    part = tmp_path / "part" / "checkpoints"
    part.mkdir(parents=True)
    for name in ("config.yaml", "data.json"):
        (tmp_path / "part" / name).write_text((run / name).read_text())
    folder = run / "checkpoints" / f"{seen:09d}"
    (part / folder.name).mkdir()
    for path in folder.iterdir():
        (part / folder.name / path.name).write_bytes(path.read_bytes())
    continued = train(staged("train.keep=10"), tmp_path, "part")
    for name in ("model", "discriminator", "encoder", "ema-5000"):
        expected, actual = (
            weights.read_weights(checkpoint.list_checkpoints(each)[-1] / f"{name}.safetensors")[0]
            for each in (run, continued)
        )
        assert all(torch.equal(value, actual[key]) for key, value in expected.items()), name


def test_a_stage_starts_from_the_averages_of_the_one_before(run):
    average = weights.read_weights(run / "checkpoints" / "000000064" / "ema-5000.safetensors")[0]
    config = staged("train.keep=10", stages=[STAGES[0], {**STAGES[1], "prior_lr": 1e-12, "duration": 128}])
    frozen = train(config, run.parent, "frozen")
    start = weights_at(frozen, 96)
    assert all(torch.allclose(start[key], average[key], atol=1e-6) for key in start if key.startswith("prior."))


class Fixed(nn.Module):
    """q(z | x_0) of a fixed mean and log-variance."""

    def forward(self, x, **cond):
        return torch.full((len(x), 4), 0.5), torch.full((len(x), 4), math.log(0.25))


def test_the_likelihood_term_is_the_evidence_lower_bound():
    components = build(staged())
    components.model.requires_grad_(False)
    x = torch.randn(6, 1, 8, 8)
    batch = Batch(x, {}, torch.Generator().manual_seed(0), seen=10)
    loss, logs = likelihood_term(components.model, Fixed(), 0, 0)(batch)
    z = 0.5 + 0.5 * torch.randn((6, 4), generator=torch.Generator().manual_seed(0))
    schedule = components.model.denoiser.schedule
    snr = (schedule.alpha(schedule.T) / schedule.sigma(schedule.T)) ** 2
    error = snr / 2 * (components.model.prior.generator(z) - x).square().sum((1, 2, 3)).mean()
    prior, posterior = torch.distributions.Normal(0.0, 1.0), torch.distributions.Normal(0.5, 0.5)
    kl = 4 * torch.distributions.kl_divergence(posterior, prior)
    assert float(logs["loss/reconstruction"]) == pytest.approx(float(error), rel=1e-5)
    assert float(logs["loss/kl"]) == pytest.approx(float(kl), rel=1e-5)
    assert float(loss) == pytest.approx(float(error + kl) / 64, rel=1e-5)
    half, _ = likelihood_term(components.model, Fixed(), 0, 20)(Batch(x, {}, torch.Generator().manual_seed(0), seen=10))
    assert float(half) == pytest.approx(float(error + kl / 2) / 64, rel=1e-5)


def test_learning_rates_follow_each_stage():
    settings = TrainConfig(
        duration=300,
        warmup=20,
        stages=[
            {"objective": "likelihood", "duration": 100, "cooldown": 0.5},
            {"objective": "denoise", "duration": 200, "warmup": 0, "denoiser_lr": 1.0},
        ],
    )
    first, second = stages_of(settings)
    assert [first.pace(seen, 10) for seen in (0, 10, 40, 75, 100)] == [0.5, 1.0, 1.0, 0.5, 0.0]
    assert [second.pace(seen, 10) for seen in (100, 299)] == [1.0, 1.0]
    assert (first.start, first.stop, second.start, second.stop) == (0, 100, 100, 300)
    assert second.rates["denoiser"] == 1.0
    assert first.rates["denoiser"] == settings.denoiser_lr


@pytest.mark.parametrize(
    ("objective", "trained"),
    [
        ("adversarial", {"prior", "discriminator"}),
        ("denoise", {"denoiser"}),
        ("likelihood", {"prior", "encoder"}),
        ("tdpm", {"denoiser", "prior", "discriminator"}),
    ],
)
def test_weights_that_no_phase_trains_are_frozen(objective, trained):
    components = build(staged(stages=[{"objective": objective, "duration": 192}]))
    TrainerState(components, torch.device("cpu"))
    model = components.model
    networks = {
        "denoiser": model.denoiser, "prior": model.prior, "discriminator": components.discriminator,
        "encoder": components.encoder,
    }  # fmt: skip
    learning = {
        name for name, network in networks.items() if network and any(p.requires_grad for p in network.parameters())
    }
    assert learning == trained


def test_sharded_training_moves_every_network_to_the_device(monkeypatch):
    monkeypatch.setattr(TrainerState, "_make_phases", lambda state: [])
    state = TrainerState(build(staged("train.shard=true")), torch.device("meta"))
    assert {"model", "discriminator", "encoder", "ema-5000"} == state.networks().keys()
    for name, network in state.networks().items():
        assert all(parameter.is_meta for parameter in network.parameters()), name


def test_a_diverged_run_reports_the_encoder(tmp_path):
    config = staged("train.max_skipped_steps=1", "train.log=16", "train.prior_lr=1e30")
    with pytest.raises(InputError, match="likelihood"):
        train(config, tmp_path, "run")
    (report,) = (tmp_path / "run").glob("diverged-*.json")
    assert {"model", "discriminator", "encoder"} == {
        key.partition(".")[0] for key in json.loads(report.read_text())["weights"]
    }


def test_the_progress_bar_shows_the_likelihood_and_losses_without_a_label():
    means = {"loss/reconstruction": 1.0, "loss/kl": 2.0, "gradient/likelihood": 3.0, "loss/new": 4.0, "D/new": 5.0}
    assert beside_bar(means) == {"reconstruction": 1.0, "KL": 2.0, "|∇likelihood|": 3.0, "loss/new": 4.0}


def test_training_has_the_networks_that_its_objectives_use():
    encoder = {"encoder": LIGHT["encoder"]}
    unused = build(load_config({**tiny_image_preset(), **encoder}))  # the prior `shared` has no vector z
    assert unused.config.encoder is unused.encoder is None
    assert unused.discriminator is not None
    assert build(staged()).encoder is not None
    for objective in ("denoise", "likelihood"):
        stages = [{"objective": objective, "duration": 192}]
        without = build(staged(stages=stages, discriminator=None))
        assert without.discriminator is None
        assert build(staged(stages=stages)).config == without.config
    with pytest.raises(InputError, match="discriminator"):
        staged(discriminator=None)


@pytest.mark.parametrize(
    ("sections", "assignments", "key"),
    [
        ({"encoder": None}, [], r"train\.stages\[0\]\.objective.*encoder"),
        ({"prior": {"name": "shared"}}, [], r"train\.stages\[0\]\.objective.*'shared'"),
        ({"prior": {"name": "denoised", "t": 50}}, [], r"train\.stages\[0\]\.objective.*'denoised'"),
        ({}, ["train.duration=200"], r"train\.duration is 200.*192"),
        ({}, ["adversarial.start=64"], r"adversarial\.start"),
        ({"stages": [{"objective": "likelyhood", "duration": 192}]}, [],
         r"train\.stages\[0\]\.objective is 'likelyhood'.*'likelihood'"),
        ({"stages": [{"objective": "denoise"}]}, [], r"train\.stages\[0\]\.duration is missing"),
        ({"stages": [STAGES[0], {"objective": "denoise", "duration": 128, "denoiser_rl": 1.0}]}, [],
         r"train\.stages\[1\]\.denoiser_rl: no such key.*'denoiser_lr'"),
        ({"stages": [{"objective": "denoise", "duration": 192, "cooldown": 2}]}, [],
         r"train\.stages\[0\]\.cooldown is 2"),
        ({"stages": ["denoise"]}, [], r"train\.stages\[0\] is 'denoise'"),
        ({"stages": "denoise"}, [], r"train\.stages is 'denoise'"),
        ({"space": {"name": "pixels", "shape": [1, 6, 6]}, "prior": LIGHT["prior"] | {"channels": [8]}}, [],
         r"discriminator\.name is 'light'.*6 × 6"),
    ],
)  # fmt: skip
def test_stages_that_do_not_fit_are_rejected(sections, assignments, key):
    with pytest.raises(InputError, match=key):
        build(staged(*assignments, **sections))
