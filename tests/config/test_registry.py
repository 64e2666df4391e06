"""One file adds a component of any kind: it is listed, its keys are read from its source, and presets can name it."""

import sys
from dataclasses import MISSING

import pytest

from tdpm_cli.config import load_config, registry
from tdpm_cli.config.json_schema import json_schema
from tdpm_cli.runtime.errors import InputError

FILES = {  # kind -> a component of one file, which has a key `size` where a preset can set keys
    "dataset": """
from tdpm_cli.config.types import Positive
from tdpm_cli.data.datasets.points import Points

__all__ = ["new"]


def new(path, raw_shape, *, size: Positive = 64):
    return Points(path, raw_shape, kind="mixture", count=size)
""",
    "space": """
from tdpm_cli.config.types import Positive
from tdpm_cli.spaces.points import Points

__all__ = ["New"]


class New(Points):
    def __init__(self, *, size: Positive = 2):
        super().__init__(dim=size)
""",
    "condition": """
from tdpm_cli.conditioning.labels import Labels
from tdpm_cli.config.types import Positive

__all__ = ["New"]


class New(Labels):
    def __init__(self, *, size: Positive = 8, names: list[str] = [], counts: list[int] = []):
        super().__init__(classes=size, names=names, counts=counts)
""",
    "text_encoder": """
__all__ = ["new"]


def new(weights=None):
    raise NotImplementedError
""",
    "schedule": """
from tdpm_cli.config.types import Positive
from tdpm_cli.engine.schedules.linear import linear

__all__ = ["new"]


def new(*, size: Positive = 1000):
    return linear(steps=size)
""",
    "backbone": """
from tdpm_cli.config.types import Positive
from tdpm_cli.models.backbones.mlp import MLP

__all__ = ["New"]


class New(MLP):
    def __init__(self, shape, sizes, *, size: Positive = 16):
        super().__init__(shape, sizes, width=size, blocks=1)
""",
    "prior": """
from tdpm_cli.config.types import Positive
from tdpm_cli.models.priors.copy import Copy

__all__ = ["New"]


class New(Copy):
    nfe, learns, shares = 1, True, False
    has_generator = False

    def __init__(self, shape, sizes, schedule, network, *, size: Positive = 1):
        super().__init__(shape, sizes, schedule, network)
""",
    "discriminator": """
from tdpm_cli.config.types import Positive
from tdpm_cli.models.discriminators.mlp import MLP

__all__ = ["New"]


class New(MLP):
    def __init__(self, shape, sizes, *, size: Positive = 16):
        super().__init__(shape, sizes, width=size)
""",
    "encoder": """
from tdpm_cli.config.types import Positive
from tdpm_cli.models.encoders.light import LightEncoder

__all__ = ["New"]


class New(LightEncoder):
    def __init__(self, shape, sizes, latent, *, size: Positive = 8):
        super().__init__(shape, sizes, latent, channels=[size, size])
""",
    "loss": """
from tdpm_cli.engine.losses.logistic import Logistic

__all__ = ["New"]


class New(Logistic):
    prior_uses_real = False
""",
    "objective": """
from tdpm_cli.engine.objectives.tdpm import TDPMObjective

__all__ = ["New"]


class New(TDPMObjective):
    needs_discriminator = True
    needs_encoder = False
    needs_own_prior = False
""",
    "sampler": """
from tdpm_cli.config.types import NonNegative
from tdpm_cli.engine.samplers.ddim import ddim

__all__ = ["new"]
ALIASES = ("newest",)


def new(denoise, x_T, times, schedule, noise, *, size: NonNegative = 0.5, **cond):
    return ddim(denoise, x_T, times, schedule, noise, eta=size, **cond)
""",
    "features": """
__all__ = ["New"]


class New:
    def __init__(self, device, weights=None):
        self.device = device
""",
    "metric": """
__all__ = ["New"]


class New:
    def __call__(self, samples, reference):
        return []
""",
    "importer": """
__all__ = ["read"]


def read(path, height):
    raise NotImplementedError
""",
    "export": """
__all__ = ["write"]


def write(path):
    raise NotImplementedError
""",
}
WITH_KEYS = ("dataset", "space", "condition", "schedule", "backbone", "prior", "discriminator", "encoder", "sampler")
NAME = "new_component"


@pytest.fixture
def add(add_component):
    """Add the file of a kind to the registry for the length of a test; return the component's name."""

    def add(kind):
        add_component(kind, NAME, f'"""A new {kind}."""\n{FILES[kind]}')
        return NAME if kind in registry.SNAKE_CASE else NAME.replace("_", "-")

    return add


def test_every_kind_has_an_example():
    assert set(FILES) == set(registry.KINDS)


@pytest.mark.parametrize("kind", FILES)
def test_one_file_adds_a_component(kind, add):
    name = add(kind)
    assert name in registry.names(kind)
    assert registry.summary(kind, name) == f"A new {kind}."
    module = f"tdpm_cli.{registry.KINDS[kind]}.{NAME}"
    assert module not in sys.modules, "keys and summary are read without importing"
    keys = registry.keys(kind, name)
    assert ("size" in keys) == (kind in WITH_KEYS)
    assert all(key.default is not MISSING for key in keys.values())
    assert registry.load(kind, name).__module__ == module


@pytest.mark.parametrize("kind", FILES)
def test_a_mistyped_name_gets_the_nearest(kind, add):
    name = add(kind)
    with pytest.raises(InputError, match=name):
        registry.resolve(kind, f"{name}x")


def test_folders_are_scanned_once(monkeypatch):
    listed = registry.names("sampler")
    monkeypatch.setattr(registry.pkgutil, "iter_modules", lambda folders: pytest.fail("a folder was scanned again"))
    assert registry.names("sampler") == listed
    assert registry.load("sampler", "ddim").__name__ == "ddim"


def test_an_alias_stands_for_its_component(add):
    name = add("sampler")
    assert registry.resolve("sampler", "newest") == name
    by_alias, by_name = (load_config("digits", [f"sample.sampler={sampler}"]) for sampler in ("newest", name))
    assert by_alias == by_name
    assert by_alias.sample.sampler == name


@pytest.mark.parametrize("assignment", ["train.objective={}", "train.stages=[{{objective: {}, duration: 64}}]"])
def test_an_alias_of_an_objective_is_the_same_run(assignment):
    overrides = ["prior.name=copy", "train.duration=64"]
    by_alias, by_name = (
        load_config("digits", [*overrides, assignment.format(objective)]) for objective in ("prior", "adversarial")
    )
    assert by_alias == by_name
    assert by_alias.sha256() == by_name.sha256()
    assert by_alias.train.stages_in_order[0].objective == "adversarial"


@pytest.mark.parametrize(("kind", "key"), [("loss", "adversarial.loss"), ("features", "eval.features")])
def test_an_alias_in_settings_becomes_the_components_name(kind, key, monkeypatch):
    name = registry.names(kind)[0]
    monkeypatch.setattr(registry, "aliases", lambda kind: {"other": name})
    assert load_config("digits", [f"{key}=other"]) == load_config("digits", [f"{key}={name}"])


def test_a_preset_of_new_components_is_validated_trained_and_sampled(add, tmp_path):
    from helpers import sample

    from tdpm_cli.training.train import train

    names = {kind: add(kind) for kind in (*WITH_KEYS, "loss", "objective") if kind != "encoder"}
    preset = {
        "preset": "new",
        "data": {"name": names["dataset"], "size": 64},
        "condition": {"name": names["condition"], "size": 8},
        **{kind: {"name": names[kind]} for kind in ("space", "schedule", "backbone", "prior", "discriminator")},
        "adversarial": {"loss": names["loss"]},
        "train": {"duration": 64, "batch": 16, "objective": names["objective"], "precision": "fp32"},
        "sample": {"steps": 2, "sampler": names["sampler"], "options": {"size": 0.1}},
    }
    config = load_config(preset, ["schedule.truncate.step=100"])
    assert config.data.options["size"] == 64
    for section in ("space", "schedule", "backbone", "prior", "discriminator", "condition"):
        assert names[section] in json_schema()["properties"][section]["properties"]["name"]["enum"]
    with pytest.raises(InputError, match=r"backbone\.size is 0"):
        load_config(preset, ["backbone.size=0"])
    run = train(config, tmp_path, "run")
    sample(tmp_path / "out", 4, run)
    assert (tmp_path / "out" / "samples.npz").is_file()
