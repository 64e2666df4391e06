import pytest
import torch

from tdpm_cli.engine.noise import Noise


def test_an_images_noise_depends_on_seed_and_index_alone():
    whole = Noise(5, range(10))
    first, second = whole.normal([3]), whole.normal([2, 2])
    for indices in ([3], [7, 3], [3, 4, 5]):
        part = Noise(5, indices)
        assert torch.equal(part.normal([3]), first[indices])
        assert torch.equal(part.normal([2, 2]), second[indices])
    assert not torch.equal(Noise(6, range(10)).normal([3]), first)


def test_choosing_leaves_the_noise_as_it_was():
    plain, chosen = Noise(5, range(4)), Noise(5, range(4))
    labels = chosen.choice(10)
    assert torch.equal(plain.normal([3]), chosen.normal([3]))
    assert labels.shape == (4,)


def test_it_is_standard_normal_and_uniform():
    noise = Noise(0, range(20_000))
    x = noise.normal([5])
    assert float(x.mean()) == pytest.approx(0, abs=0.02)
    assert float(x.std()) == pytest.approx(1, abs=0.02)
    assert (noise.choice(4).bincount() / 20_000).tolist() == pytest.approx([0.25] * 4, abs=0.02)
    assert len(x.unique(dim=0)) == 20_000
