import pytest
import torch
from components import COND, IMAGES, SIZES, SMALL, listed, perturbed, shape_for

from tdpm_cli.config import registry
from tdpm_cli.runtime.errors import InputError


@pytest.mark.parametrize("name", listed("backbone"))
def test_backbones(name):
    shape = shape_for(name)
    network = perturbed(registry.load("backbone", name)(shape, SIZES, **SMALL.get(name, {})))
    x, t = torch.randn(4, *shape, requires_grad=True), torch.tensor([1, 10, 100, 500])
    out = network(x, t, **COND)
    assert out.shape == x.shape
    out.sum().backward()
    assert x.grad is not None
    unused = [key for key, p in network.named_parameters() if p.grad is None]
    assert not unused
    assert not torch.allclose(network(x, t + 7, **COND), out)
    assert not torch.allclose(network(x, t, label=torch.tensor([1, 1, 1, 1])), out)
    alone = network(x[1:2], t[1:2], label=COND["label"][1:2])
    assert torch.allclose(alone, out[1:2], atol=1e-4)


@pytest.mark.parametrize("options", [{"resample": "block"}, {"scale_shift": True}, {"head_channels": 8}])
def test_the_unets_options_of_adm(options):
    torch.manual_seed(0)
    network = perturbed(registry.load("backbone", "unet")(IMAGES, SIZES, **SMALL["unet"], **options))
    x, t = torch.randn(4, *IMAGES), torch.tensor([1, 10, 100, 500])
    out = network(x, t, **COND)
    assert out.shape == x.shape
    out.sum().backward()
    gradients = {key: p.grad.clone() for key, p in network.named_parameters()}
    network.zero_grad()
    network.checkpointing = True
    network(x, t, **COND).sum().backward()
    assert all(torch.allclose(p.grad, gradients[key], atol=1e-5) for key, p in network.named_parameters())


def test_the_unet_of_adm_has_its_published_size():
    with torch.device("meta"):
        network = registry.load("backbone", "unet")(
            (3, 64, 64), {"label": 1001}, channels=192, mult=[1, 2, 3, 4], blocks=3, attention=[32, 16, 8],
            head_channels=64, scale_shift=True, resample="block", dropout=0.1,
        )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(295.9, rel=0.005)  # Karras et al. 2022


def test_unet_takes_pooled_and_sequence_conditions():
    sizes = {"pooled": 6, "context": 7}
    network = perturbed(registry.load("backbone", "unet")((3, 16, 16), sizes, **SMALL["unet"]))
    x, t = torch.randn(2, 3, 16, 16), torch.tensor([1, 2])
    pooled, context = torch.randn(2, 6), torch.randn(2, 4, 7)
    out = network(x, t, pooled=pooled, context=context)
    assert not torch.allclose(out, network(x, t, pooled=pooled + 1, context=context))
    assert not torch.allclose(out, network(x, t, pooled=pooled, context=context + 1))
    assert torch.allclose(out, network(x, t, pooled=pooled, context=context.flip(1)), atol=1e-5)  # a set of tokens


def test_unet_says_what_does_not_fit():
    unet = registry.load("backbone", "unet")
    with pytest.raises(InputError, match=r"must divide by 8.*20 × 20"):
        unet((3, 20, 20), {}, mult=[1, 1, 1, 1], channels=8)
    with pytest.raises(InputError, match=r"use mlp"):
        unet((2,), {})


@pytest.mark.parametrize(
    ("shape", "mult", "base", "model", "critic"),
    [
        ((3, 32, 32), [1, 2, 2, 2], 16384, 35.75, 21.5),
        ((3, 64, 64), [1, 2, 2, 2, 4], 32768, 78.7, 26.5),
        ((3, 256, 256), [1, 1, 2, 2, 4, 4], 32768, 113.7, 28.9),
    ],
)
def test_networks_have_the_papers_sizes(shape, mult, base, model, critic):
    count = lambda network: sum(p.numel() for p in network.parameters()) / 1e6
    with torch.device("meta"):
        assert count(registry.load("backbone", "unet")(shape, {}, mult=mult)) == pytest.approx(model, rel=0.003)
        assert count(registry.load("discriminator", "resnet")(shape, {}, channel_base=base)) == pytest.approx(
            critic, rel=0.003
        )
