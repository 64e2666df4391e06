import math

import pytest
import torch
from torch import nn
from torch.nn.functional import softplus

from tdpm_cli.engine.losses import discriminator_loss, gradient_penalty, prior_loss


def test_losses_are_the_papers():
    fake, real = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5])
    assert torch.allclose(prior_loss("logistic", fake, real), -torch.sigmoid(fake).log())
    assert torch.allclose(
        discriminator_loss("logistic", fake, real),
        -(1 - torch.sigmoid(fake)).log() - torch.sigmoid(real).log(),
    )
    assert torch.allclose(prior_loss("relativistic", fake, real), softplus(-(fake - real)))
    assert torch.allclose(discriminator_loss("relativistic", fake, real), softplus(-(real - fake)))


def test_at_equilibrium_the_losses_are_log_2_each():
    zero = torch.zeros(3)
    assert discriminator_loss("logistic", zero, zero).tolist() == pytest.approx([2 * math.log(2)] * 3)
    assert discriminator_loss("relativistic", zero, zero).tolist() == pytest.approx([math.log(2)] * 3)


@pytest.mark.parametrize("gamma", [0.1, 2.0])
def test_the_penalty_of_a_linear_discriminator_is_half_gamma_w_squared(gamma):
    linear = nn.Linear(6, 1)
    penalty = gradient_penalty(lambda x: linear(x.flatten(1))[:, 0], torch.randn(5, 2, 3), gamma)
    assert penalty.shape == (5,)
    expected = gamma / 2 * float(linear.weight.detach().square().sum())
    assert penalty.tolist() == pytest.approx([expected] * 5, rel=1e-5)
    penalty.mean().backward()
    assert torch.allclose(linear.weight.grad, gamma * linear.weight, rtol=1e-5)
