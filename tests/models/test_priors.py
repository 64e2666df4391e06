import pytest
import torch
from components import COND, IMAGES, POINTS, SIZES, SMALL, listed, perturbed

from tdpm_cli.config import registry
from tdpm_cli.engine.schedule import Schedule


def networks_of(prior, backbone):
    """The networks whose calls count: those of the denoiser's class, or the generator; none without weights."""
    own = [module for module in prior.modules() if isinstance(module, backbone)]
    generator = dict(prior.named_children()).get("generator", prior)
    return own or [generator] * any(True for _ in prior.parameters())


@pytest.mark.parametrize("name", listed("prior"))
def test_priors(name):
    network = perturbed(registry.load("backbone", "unet")(IMAGES, SIZES, **SMALL["unet"]))
    schedule = Schedule(torch.linspace(1, 0.5, 101))
    prior = perturbed(registry.load("prior", name)(IMAGES, SIZES, schedule, network, **SMALL.get(name, {})))
    prior.start(network)
    z = torch.randn(4, *prior.z_shape)
    calls = []
    for called in networks_of(prior, type(network)):
        called.register_forward_hook(lambda *arguments: calls.append(1))
    x_T = prior(z, **COND)
    assert x_T.shape == (4, *IMAGES)
    assert prior.nfe == len(calls) == (0 if name == "gaussian" else 1)
    if prior.learns:
        assert not torch.allclose(prior(z, label=torch.tensor([1, 1, 1, 1])), x_T)
        assert not torch.allclose(prior(torch.randn(4, *prior.z_shape), **COND), x_T)
        assert torch.allclose(prior(z[1:2], label=COND["label"][1:2]), x_T[1:2], atol=1e-4)
        prior(z, **COND).sum().backward()
        assert not [key for key, p in prior.named_parameters() if p.grad is None]
    if name in ("shared", "copy"):
        assert torch.equal(prior(z, **COND), network(z, torch.full((4,), 101), **COND))


def test_a_generators_images_get_exact_noise_at_T():
    network = perturbed(registry.load("backbone", "unet")(IMAGES, {}, **SMALL["unet"]))
    schedule = Schedule(torch.linspace(1, 0.64, 101))  # alpha_T = 0.8, sigma_T = 0.6
    prior = registry.load("prior", "x0-then-noise")(IMAGES, {}, schedule, network, **SMALL["x0-then-noise"])
    z, eps = torch.randn(2, *prior.generator.z_shape), torch.randn(2, *IMAGES)
    expected = 0.8 * prior.generator(z) + 0.6 * eps
    assert torch.allclose(prior(torch.cat([z, eps.flatten(1)], 1)), expected, atol=1e-6)


def test_modulation_is_a_convolution_with_scaled_and_normalised_weights():
    from tdpm_cli.models.stylegan2 import Modulated

    layer = Modulated(5, 7, 3, 4)
    x, style = torch.randn(2, 5, 6, 6), torch.randn(2, 4)
    expected = []
    for image, scale in zip(x, layer.style(style), strict=True):
        weight = layer.weight * layer.gain * scale[None, :, None, None]  # eq. 1 of StyleGAN2
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        expected.append(torch.nn.functional.conv2d(image[None], weight, padding=1))
    assert torch.allclose(layer(x, style), torch.cat(expected), atol=1e-5)


def test_a_prior_of_x_0_has_exact_noise_at_T():
    network = perturbed(registry.load("backbone", "mlp")(POINTS, {}, width=16, blocks=1))
    schedule = Schedule(torch.linspace(1, 0.64, 101))  # alpha_T = 0.8, sigma_T = 0.6
    prior = registry.load("prior", "shared-x0")(POINTS, {}, schedule, network)
    z, eps = torch.randn(5, 2), torch.randn(5, 2)
    expected = 0.8 * network(z, torch.full((5,), 101)) + 0.6 * eps
    assert torch.allclose(prior(torch.cat([z, eps], 1)), expected, atol=1e-6)
