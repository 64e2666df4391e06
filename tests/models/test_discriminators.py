import pytest
import torch
from components import COND, IMAGES, POINTS, SIZES, SMALL, listed, perturbed, shape_for

from tdpm_cli.config import registry
from tdpm_cli.runtime.errors import InputError


@pytest.mark.parametrize("name", listed("discriminator"))
def test_discriminators(name):
    shape = shape_for(name)
    critic = perturbed(registry.load("discriminator", name)(shape, SIZES, **SMALL.get(name, {})))
    x = torch.randn(4, *shape, requires_grad=True)
    logits = critic(x, **COND)
    assert logits.shape == (4,)
    assert not torch.allclose(critic(x, label=torch.tensor([1, 1, 1, 1])), logits)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    gradient.square().sum().backward()  # twice differentiable, as R1 needs
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())


def test_a_discriminator_sees_the_text():
    critic = perturbed(registry.load("discriminator", "resnet")(IMAGES, {"pooled": 6, "context": 6}, channel_base=64))
    x, pooled, context = torch.randn(4, *IMAGES), torch.randn(4, 6), torch.randn(4, 3, 6)
    logits = critic(x, pooled=pooled, context=context)
    assert logits.shape == (4,)
    assert not torch.allclose(critic(x, pooled=pooled.flip(0), context=context), logits)


@pytest.mark.parametrize("kind", ["backbone", "discriminator"])
def test_networks_of_points_take_no_text(kind):
    with pytest.raises(InputError, match=r"'mlp', which .*context, pooled"):
        registry.load(kind, "mlp")(POINTS, {"pooled": 6, "context": 6})


@pytest.mark.parametrize("side", [1, 4, 5, 7, 8, 28])
def test_resnet_takes_any_size(side):
    critic = registry.load("discriminator", "resnet")((1, side, side + 1), {}, channel_base=32)
    assert critic(torch.randn(3, 1, side, side + 1)).shape == (3,)


def test_minibatch_std_sees_a_collapse():
    from tdpm_cli.models.layers import with_minibatch_std

    same, varied = torch.ones(8, 2, 3, 3), torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert float(with_minibatch_std(same, 4)[:, -1].max()) < 1e-3
    assert float(with_minibatch_std(varied, 4)[:, -1].min()) > 0.3
