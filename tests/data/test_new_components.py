"""A dataset, a space, a condition and a text encoder, each in one file outside the package: trained and sampled."""

import json

import pytest
from helpers import sample

from tdpm_cli.config import load_config
from tdpm_cli.training.train import train

FILES = {
    ("dataset", "ring"): '''"""Points on a ring."""

import torch

__all__ = ["Ring"]


class Ring:
    shape, class_names, prepared, notes = (2,), ["left", "right"], "as drawn", ()

    def __init__(self, path, raw_shape, *, count: int = 64):
        angle = torch.linspace(0, 6.28, count)
        self.points = torch.stack([angle.cos(), angle.sin()], 1)

    def __len__(self):
        return len(self.points)

    def __getitem__(self, indices):
        return self.points[torch.as_tensor(indices)], self.raw_condition(indices)

    def raw_condition(self, indices):
        return {"label": (self.points[torch.as_tensor(indices), 0] > 0).long()}

    def fingerprint(self):
        return f"ring {len(self)}"

    def sha256(self):
        return self.fingerprint()
''',
    ("space", "doubled"): '''"""Points, doubled."""

__all__ = ["Doubled"]


class Doubled:
    bounds, shape, raw_shape = None, (2,), (2,)

    def __init__(self, *, factor: float = 2.0):
        self.factor = factor

    def encode(self, raw, generator=None):
        return raw.float() * self.factor

    def decode(self, x):
        return x.float() / self.factor

    def to_image(self, raw, columns=None):
        from PIL import Image

        return Image.new("RGB", (64, 64))
''',
    ("condition", "half"): '''"""The half of the plane, as a label."""

import torch

__all__ = ["Half"]


class Half:
    option, dropout, sizes, names = "--labels", 0.1, {"label": 3}, ["left", "right"]

    def __init__(self):
        pass

    def encode(self, raw_condition, generator=None):
        return {"label": raw_condition["label"].long()}

    def null(self, n):
        return {"label": torch.full((n,), 2)}

    def text_encoder(self):
        return None

    def draw(self, n, noise):
        return {"label": noise.choice(2)}

    def fit(self, dataset):
        return {}

    def parse(self, words, n):
        return {"label": torch.tensor([self.names.index(words[k % len(words)]) for k in range(n)])}
''',
    ("text_encoder", "letters"): '''"""Letters as vectors."""

import torch

from tdpm_cli.conditioning.captions.cache import CachedVectors, Embedding

__all__ = ["Letters"]


class Letters:
    dim, limit, identity = 2, 8, "letters"

    def __init__(self, weights=None):
        pass

    def __call__(self, texts, tokens):
        vectors = [torch.tensor([[ord(letter) / 64, 1.0] for letter in text[:tokens]]) for text in texts]
        return [Embedding(v, v.mean(0), len(text) > tokens) for v, text in zip(vectors, texts, strict=True)]

    def to(self, device):
        pass

    def vectors(self, tokens, dim):
        return CachedVectors(self, tokens, dim)
''',
}


@pytest.fixture
def components(add_component):
    """Register the files; forget them after the test."""
    for (kind, module), source in FILES.items():
        add_component(kind, module, source)


def test_a_new_dataset_space_and_condition_are_trained_and_sampled(components, tiny, tmp_path):
    values = tiny("train.duration=64") | {
        "data": {"name": "ring"}, "space": {"name": "doubled", "factor": 3.0}, "condition": {"name": "half"},
    }  # fmt: skip
    run = train(load_config(values), tmp_path, "run")
    sample(tmp_path / "out", 4, run, labels=["left", "right"])
    manifest = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert manifest["config"]["space"] == {"name": "doubled", "factor": 3.0}
    assert manifest["conditions"]["label"] == [0, 1, 0, 1]
    assert json.loads((run / "data.json").read_text())["fingerprint"] == "ring 64"


def test_a_new_text_encoder_is_trained_and_sampled(components, tiny_images, tmp_path):
    condition = {"name": "text", "text_encoder": "letters", "tokens": 8, "templates": ["{class}"]}
    run = train(load_config(tiny_images("train.duration=32") | {"condition": condition}), tmp_path, "run")
    sample(tmp_path / "out", 2, run, prompts=["abc", "d"])
    manifest = json.loads((tmp_path / "out" / "samples.json").read_text())
    assert manifest["config"]["condition"]["dim"] == 2
