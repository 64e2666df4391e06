import math

import pytest
import torch

from tdpm_cli.config import registry

COUNT = 20_000


def drawn(kind, seed=0):
    """The points and labels of a distribution."""
    data = registry.load("dataset", "points")(None, (2,), kind=kind, count=COUNT, seed=seed)
    raw, cond = data[range(COUNT)]
    return raw, cond["label"]


@pytest.mark.parametrize("kind", ["mixture", "swissroll", "gaussians25"])
def test_points_follow_from_the_seed(kind):
    assert torch.equal(drawn(kind)[0], drawn(kind)[0])
    assert not torch.equal(drawn(kind)[0], drawn(kind, seed=1)[0])


def test_the_mixture_has_unequal_components_off_the_centre():
    raw, label = drawn("mixture")
    shares = label.bincount() / COUNT
    assert torch.allclose(shares, torch.tensor([0.34, 0.26, 0.2, 0.13, 0.07]), atol=0.015)
    centres = torch.stack([raw[label == k].mean(0) for k in range(5)])
    expected = torch.tensor([[0.6, 0.2], [2.0, 0.3], [1.3, 1.7], [0.1, 1.4], [2.3, 1.5]])
    assert torch.allclose(centres, expected, atol=0.03)
    assert float(raw.mean(0).norm()) > 1  # so that N(0, I) is a wrong start


def test_the_swissroll_is_a_spiral():
    raw, _ = drawn("swissroll")
    radius, angle = raw.norm(dim=1), torch.atan2(raw[:, 1], raw[:, 0])
    turn = radius / 2 * 4.5 * math.pi  # the angle at this radius, whole turns included
    off = torch.remainder(turn - angle + math.pi, 2 * math.pi) - math.pi
    blur = 0.04 * 4.5 * math.pi / 2  # of the radius, as an angle
    assert float(off.abs().mean()) < 2 * blur
    assert 0.4 < float(radius.min()) < 0.67  # one and a half turns: from a third of the radius 2, blurred
    assert 2 < float(radius.max()) < 2.3


def test_the_25_gaussians_are_a_grid():
    raw, label = drawn("gaussians25")
    assert torch.allclose(label.bincount() / COUNT, torch.full((25,), 1 / 25), atol=0.01)
    centres = torch.stack([label // 5 - 2, label % 5 - 2], 1)
    assert torch.equal(raw.round().long(), centres)
    assert float((raw - centres).std()) == pytest.approx(0.05, rel=0.03)
