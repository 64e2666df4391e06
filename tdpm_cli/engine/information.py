"""What the noisy data ask of a prior, in nats, from the covariance of the data."""

import torch
from torch import Tensor


def spectrum(x: Tensor) -> Tensor:
    """Return the eigenvalues [min(n, d)] of the covariance of x [n, *shape] with d numbers each; float64, descending.

    Of the two matrices with these eigenvalues, x xᵀ and xᵀ x, it takes the smaller.
    """
    x = x.flatten(1).double()
    x = x - x.mean(0)
    n, d = x.shape
    product = x.T @ x if d <= n else x @ x.T
    return torch.linalg.eigvalsh(product / max(n - 1, 1)).clamp(min=0).flip(0)


def nats(eigenvalues: Tensor, alpha: float, sigma: float) -> float:
    """Return ½ Σ log(1 + alpha² λ / sigma²): the information about x_0 in x_t, for Gaussian data with covariance λ.

    It is the capacity of parallel Gaussian channels (Cover and Thomas 2006, sec. 9.4), and an upper bound for data of
    any other distribution with this covariance. The prior must supply this information at the truncation point.
    """
    return float(torch.log1p(eigenvalues * (alpha / sigma) ** 2).sum() / 2)
