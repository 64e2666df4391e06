import math

import pytest
import torch
from torch.nn.functional import softplus

from tdpm_cli.config import registry
from tdpm_cli.engine.losses.logistic import Logistic
from tdpm_cli.engine.losses.relativistic import Relativistic
from tdpm_cli.runtime.errors import InputError


def test_the_logistic_loss_is_the_papers():
    fake, real, loss = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5]), Logistic()
    assert torch.allclose(loss.prior(fake, real), -torch.sigmoid(fake).log())
    expected = -(1 - torch.sigmoid(fake)).log() - torch.sigmoid(real).log()
    assert torch.allclose(loss.discriminator(fake, real), expected)


def test_the_relativistic_loss_is_the_papers():
    fake, real, loss = torch.tensor([0.3, -1.0]), torch.tensor([2.0, 0.5]), Relativistic()
    assert torch.allclose(loss.prior(fake, real), softplus(-(fake - real)))
    assert torch.allclose(loss.discriminator(fake, real), softplus(-(real - fake)))


@pytest.mark.parametrize(("loss", "expected"), [(Logistic(), 2 * math.log(2)), (Relativistic(), math.log(2))])
def test_a_discriminator_that_cannot_decide_loses_log_2_for_each_decision(loss, expected):
    zero = torch.zeros(3)
    assert loss.discriminator(zero, zero).tolist() == pytest.approx([expected] * 3)


@pytest.mark.parametrize("name", registry.names("loss"))
def test_the_prior_gains_from_higher_logits_and_uses_real_ones_only_if_declared(name):
    loss, fake, real = registry.load("loss", name)(), torch.tensor([0.5, -1.0]), torch.tensor([1.0, 2.0])
    assert bool((loss.prior(fake + 1, real) < loss.prior(fake, real)).all())
    assert bool((loss.discriminator(fake + 1, real) > loss.discriminator(fake, real)).all())
    assert loss.prior_uses_real != torch.equal(loss.prior(fake, real), loss.prior(fake, 0 * real))


def test_an_unknown_loss_is_refused(tiny):
    from tdpm_cli.config import load_config

    with pytest.raises(InputError, match=r"adversarial.loss.*hinge"):
        load_config(tiny("adversarial.loss=hinge"))
