import pytest
import torch
from torch import nn

from tdpm_cli.engine.penalties import gradient_penalty


@pytest.mark.parametrize("gamma", [0.1, 2.0])
def test_the_penalty_of_a_linear_discriminator_is_half_gamma_w_squared(gamma):
    linear = nn.Linear(6, 1)
    penalty = gradient_penalty(lambda x: linear(x.flatten(1))[:, 0], torch.randn(5, 2, 3), gamma)
    assert penalty.shape == (5,)
    expected = gamma / 2 * float(linear.weight.detach().square().sum())
    assert penalty.tolist() == pytest.approx([expected] * 5, rel=1e-5)
    penalty.mean().backward()
    assert torch.allclose(linear.weight.grad, gamma * linear.weight, rtol=1e-5)
