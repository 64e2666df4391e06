import numpy as np
import pytest
import torch
from scipy import linalg, stats

from tdpm_cli.engine import scores


def test_frechet_of_gaussians_in_one_dimension_is_exact():
    one, two = (torch.tensor([1.0]), torch.tensor([[4.0]])), (torch.tensor([3.0]), torch.tensor([[9.0]]))
    one, two = [tuple(x.double() for x in pair) for pair in (one, two)]
    assert scores.frechet(one, two) == pytest.approx((1 - 3) ** 2 + (2 - 3) ** 2)
    assert scores.frechet(one, one) == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("n", [50, 400])  # fewer examples than dimensions, and more
def test_frechet_agrees_with_the_matrix_square_root(n, generator):
    a, b = (
        torch.randn(n, 80, generator=generator),
        torch.randn(n, 80, generator=generator) @ torch.randn(80, 80),
    )
    first, second = scores.moments(a), scores.moments(b)
    assert np.allclose(first[1].numpy(), np.cov(a.double().numpy(), rowvar=False))
    root = linalg.sqrtm((first[1] @ second[1]).numpy()).real
    expected = float((first[0] - second[0]).square().sum() + first[1].trace() + second[1].trace()) - 2 * root.trace()
    assert scores.frechet(first, second) == pytest.approx(expected, rel=1e-4)


def test_sliced_wasserstein_of_shifted_and_scaled_samples():
    x = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0))
    # A shift by d moves a projection by d·w; the mean of (d·w)² over unit directions in 2-D is |d|²/2.
    shift = torch.tensor([3.0, 4.0])
    assert scores.sliced_wasserstein(x, x + shift) == pytest.approx(5 / 2**0.5, rel=0.05)
    assert scores.sliced_wasserstein(x, x) == 0
    assert scores.sliced_wasserstein(x, 2 * x) == pytest.approx(float(x.square().sum(1).mean() / 2) ** 0.5, rel=0.02)


def test_sliced_wasserstein_in_one_dimension_is_the_wasserstein_distance():
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(500, 1, generator=generator), 2 * torch.randn(2000, 1, generator=generator) + 1
    quantiles = (np.arange(20_000) + 0.5) / 20_000
    exact = np.sqrt(np.mean((np.quantile(x, quantiles) - np.quantile(y, quantiles)) ** 2))
    assert scores.sliced_wasserstein(x, y) == pytest.approx(exact, rel=0.02)
    assert scores.sliced_wasserstein(x, y) == scores.sliced_wasserstein(y, x)
    assert scores.sliced_wasserstein(x, y) >= stats.wasserstein_distance(x[:, 0], y[:, 0]) * 0.98
