import pytest
import torch

from tdpm_cli.engine.noise import Noise, philox


def test_an_images_noise_depends_on_seed_and_index_alone():
    noise = Noise(5, range(10))
    first, second = noise.normal([3]), noise.normal([2, 2])
    for indices in ([3], [7, 3], [3, 4, 5]):
        part = Noise(5, indices)
        assert torch.equal(part.normal([3]), first[indices])
        assert torch.equal(part.normal([2, 2]), second[indices])
    assert not torch.equal(Noise(6, range(10)).normal([3]), first)


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # the known answers that Random123 comes with
        ([0, 0, 0, 0], [0, 0], [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([0xFFFFFFFF] * 4, [0xFFFFFFFF] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_it_is_philox(counter, key, expected):
    numbers = philox([torch.tensor([word]) for word in counter], tuple(key))
    assert [int(word) for word in numbers] == expected


def test_large_seeds_and_indices_count_in_full():
    rows = [Noise(seed, [index]).normal([4]) for seed in (1, 1 + (1 << 32)) for index in (7, 7 + (1 << 40))]
    assert len(torch.cat(rows).unique(dim=0)) == 4


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
    assert float(x.pow(4).mean()) == pytest.approx(3, abs=0.1)
    assert float(torch.corrcoef(x.T).fill_diagonal_(0).abs().max()) < 0.03
