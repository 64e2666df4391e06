import os

os.environ.setdefault("OMP_NUM_THREADS", "2")

import pytest
import torch

from tdpm_cli import config


@pytest.fixture
def tiny():
    """Plain values of a tiny preset of points: a second of training."""

    def make(*assignments: str) -> dict:
        plain = config.read_preset("toy-mixture")
        small = [
            "data.count=512", "backbone.width=16", "backbone.blocks=1", "discriminator.width=16",
            "train.duration=256", "train.batch=32", "train.snapshot=64", "train.log=32", "train.precision=fp32",
        ]  # fmt: skip
        return config.override(plain, [*small, *assignments])

    return make


@pytest.fixture
def tiny_images():
    """Plain values of a tiny preset of images."""

    def make(*assignments: str) -> dict:
        plain = config.read_preset("digits")
        small = [
            "backbone.channels=8", "backbone.mult=[1, 2]", "discriminator.channel_base=32", "train.duration=128",
            "train.batch=16", "train.snapshot=64", "train.log=16", "train.precision=fp32",
        ]  # fmt: skip
        return config.override(plain, [*small, *assignments])

    return make


@pytest.fixture
def generator():
    return torch.Generator().manual_seed(0)
