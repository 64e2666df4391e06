import pytest
import torch
from torch import nn

from tdpm_cli.engine.ema import EMA


def test_the_half_life_is_a_half_life():
    model = nn.Linear(1, 1, bias=False)
    nn.init.ones_(model.weight)
    ema = EMA(model, half_life=1000, ramp=None)
    nn.init.zeros_(model.weight)
    for step in range(1, 11):
        ema.update(model, 100, 100 * step)
    assert float(ema.model.weight) == pytest.approx(0.5, rel=1e-5)


def test_the_ramp_forgets_the_random_start():
    model = nn.Linear(1, 1, bias=False)
    ema = EMA(model, half_life=1_000_000, ramp=0.05)
    assert ema.decay(100, 2000) == pytest.approx(0.5)  # 0.05 · 2000 = 100 images
    assert ema.decay(100, 100_000_000) == pytest.approx(0.5 ** (100 / 1_000_000))
    assert EMA(model, half_life=0).decay(100, 100) == 0


def test_a_restart_forgets_the_past_of_one_part_only():
    model = nn.ModuleDict({"a": nn.Linear(2, 2), "b": nn.Linear(2, 2)})
    ema = EMA(model, half_life=1e9, ramp=None)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    ema.restart(model, model["a"])
    assert torch.equal(ema.model["a"].weight, model["a"].weight)
    assert torch.allclose(ema.model["b"].weight, model["b"].weight - 1)


def test_shared_weights_stay_shared_and_buffers_follow():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.BatchNorm1d(2)
            self.b = self.a

    model = Twice()
    ema = EMA(model, 100)
    assert ema.model.a.weight is ema.model.b.weight
    model.a(torch.randn(8, 2) + 5)
    ema.update(model, 8, 8)
    assert torch.equal(ema.model.a.running_mean, model.a.running_mean)
    assert not any(p.requires_grad for p in ema.model.parameters())
