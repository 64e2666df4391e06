import importlib
import os
import sys
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "2")
sys.path.append(str(Path(__file__).parent.parent))  # the scripts; last, so that tests use the installed package

import pytest
import torch
from helpers import scripted, tiny_image_preset, tiny_preset

from tdpm_cli.config import registry
from tdpm_cli.config import schema as config


@pytest.fixture
def tiny():
    """Make the values of a tiny preset of points, which trains in a second, with assignments."""
    return tiny_preset


@pytest.fixture
def tiny_images():
    """Make the values of a tiny preset of images."""
    return tiny_image_preset


@pytest.fixture(scope="session")
def runs(tmp_path_factory):
    """Runs of a few steps: points, images, and images with labels."""
    from tdpm_cli.training.train import train

    folder = tmp_path_factory.mktemp("runs")
    labels = ["condition.name=labels", "condition.classes=10"]
    return {
        "points": train(config.load_config(tiny_preset()), folder, "points"),
        "images": train(config.load_config(tiny_image_preset()), folder, "images"),
        "labels": train(config.load_config(tiny_image_preset(*labels)), folder, "labels"),
    }


@pytest.fixture(autouse=True)
def _own_cache(tmp_path, monkeypatch):
    """No test reads or writes the user's cache."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session", autouse=True)
def _own_data(tmp_path_factory):
    """No test reads or writes what the user of this machine trusts; runs of other fixtures are trusted by all tests."""
    with pytest.MonkeyPatch.context() as patched:
        patched.setenv("XDG_DATA_HOME", str(tmp_path_factory.mktemp("data")))
        yield


class Pooled(torch.nn.Module):
    """Features that take no time: an image pooled to 4×4."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images.float() / 255, 4).flatten(1)


@pytest.fixture(scope="session")
def pooled(tmp_path_factory):
    """Those features as --features takes them."""
    return f"torchscript:{scripted(Pooled(), tmp_path_factory.mktemp('features') / 'pooled.pt')}"


class StandIn(torch.nn.Module):
    """Inception's interface as clean-fid uses it: `layers` of images at 299² scaled to [-1, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = torch.nn.Sequential(torch.nn.AvgPool2d(37), torch.nn.Flatten(), torch.nn.Linear(192, 2048))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


@pytest.fixture(scope="session")
def stand_in(tmp_path_factory):
    """A file of that interface, named as clean-fid names its own."""
    torch.manual_seed(0)
    return scripted(StandIn(), tmp_path_factory.mktemp("inception") / "inception-2015-12-05.pt")


@pytest.fixture
def add_component(tmp_path, monkeypatch):
    """Add a file of a kind to the registry for the length of a test: add_component(kind, module, source)."""
    added = []

    def add(kind, module, source):
        package = importlib.import_module(f"tdpm_cli.{registry.KINDS[kind]}")
        monkeypatch.setattr(package, "__path__", list(package.__path__))
        folder = tmp_path / "components" / kind
        folder.mkdir(parents=True)
        (folder / f"{module}.py").write_text(source)
        registry.add_folder(kind, folder)
        added.append(f"{package.__name__}.{module}")

    yield add
    for module in added:
        sys.modules.pop(module, None)


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
