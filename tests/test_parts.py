"""Every part, found by listing its folder: a new file is tested by existing."""

import inspect
from dataclasses import MISSING
from typing import get_type_hints

import pytest
import torch

from tdpm_cli.config import registry
from tdpm_cli.config.signatures import Key
from tdpm_cli.config.validation import check, complete
from tdpm_cli.engine.noise import Noise
from tdpm_cli.engine.schedule import Schedule
from tdpm_cli.runtime.errors import InputError

POINTS, IMAGES = (2,), (3, 16, 12)
SIZES = {"label": 5}
COND = {"label": torch.tensor([0, 4, 2, 2])}
FROM_FILES = {  # tested where their files are made
    "images", "npz", "idx", "fashion-mnist", "cifar10", "celeba", "lsun", "webdataset", "huggingface",
    "inception", "torchscript", "dinov2", "clip", "image-text", "latents", "t5", "coco", "cub", "upsampling",
}  # fmt: skip
FLAT = {"mlp"}  # networks for points; all others take images
SMALL = {  # keyword arguments that make a part small, or that it must have
    "unet": {"channels": 8, "mult": [1, 2], "attention": [8], "blocks": 1},
    "resnet": {"channel_base": 64},
    "stylegan2": {"latent": 8, "layers": 2, "channel_base": 64},
    "denoised": {"t": 90},
    "x0-then-noise": {"latent": 8, "layers": 2, "channel_base": 64},
    "torchscript": {"program": "a hash"},
    "points": {"kind": "mixture"},
    "pixels": {"shape": [1, 8, 8]},
    "labels": {"classes": 5},
    "latents": {"shape": [3, 16, 16], "autoencoder": "a folder"},
    "upsampling": {"low": [1, 8, 8]},
    "text": {"names": ["cat", "dog", "ship", "bird", "tree"], "examples": ["a cat", "a dog"], "tokens": 8},
}

UNNEEDED = {
    ("space", "points"),
    ("dataset", "latents"),
    ("features", "torchscript"),
}  # parts of the same name as others of another kind


def shape_for(name):
    return POINTS if name in FLAT else IMAGES


def of(kind):
    return [name for name in registry.names(kind) if name not in FROM_FILES]


def test_every_kind_has_parts_and_an_unknown_name_gets_the_nearest():
    assert all(registry.names(kind) for kind in registry.KINDS)
    with pytest.raises(
        InputError,
        match=r"'sharde'; did you mean 'shared'.*Accepted: copy, denoised, gaussian, shared, shared-x0, stylegan2",
    ):
        registry.load("prior", "sharde")
    with pytest.raises(InputError, match=r"no-such|accepted|Accepted"):
        registry.load("prior", "../run/checkpoint")


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind in registry.KINDS for name in registry.names(kind)])
def test_the_signature_is_a_schema(kind, name):
    part = registry.load(kind, name)
    assert part.__doc__
    accepted = registry.keys(kind, name)
    assert accepted == imported(part)
    needed = SMALL.get(name, {}) if (kind, name) not in UNNEEDED else {}
    checked = complete(accepted, needed, kind)
    assert check(accepted, checked, kind) == checked


def imported(function):
    """The keys of what was imported, as `signatures` reads them from its source."""
    hints = get_type_hints(function.__init__ if inspect.isclass(function) else function, include_extras=True)
    keys = [p for p in inspect.signature(function).parameters.values() if p.kind is p.KEYWORD_ONLY]
    return {key.name: Key(hints[key.name], MISSING if key.default is key.empty else key.default) for key in keys}


def moved(network, lr=0.1):
    """Weights away from the zeros that residual branches start from."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(lr * torch.randn(parameter.shape, generator=generator))
    return network.eval()


@pytest.mark.parametrize("name", of("backbone"))
def test_backbones(name):
    shape = shape_for(name)
    network = moved(registry.load("backbone", name)(shape, SIZES, **SMALL.get(name, {})))
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


@pytest.mark.parametrize("name", of("discriminator"))
def test_discriminators(name):
    shape = shape_for(name)
    critic = moved(registry.load("discriminator", name)(shape, SIZES, **SMALL.get(name, {})))
    x = torch.randn(4, *shape, requires_grad=True)
    logits = critic(x, **COND)
    assert logits.shape == (4,)
    assert not torch.allclose(critic(x, label=torch.tensor([1, 1, 1, 1])), logits)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    gradient.square().sum().backward()  # twice differentiable, as R1 needs
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in critic.parameters())


def test_a_discriminator_sees_the_text():
    critic = moved(registry.load("discriminator", "resnet")(IMAGES, {"pooled": 6, "context": 6}, channel_base=64))
    x, pooled, context = torch.randn(4, *IMAGES), torch.randn(4, 6), torch.randn(4, 3, 6)
    logits = critic(x, pooled=pooled, context=context)
    assert logits.shape == (4,)
    assert not torch.allclose(critic(x, pooled=pooled.flip(0), context=context), logits)


@pytest.mark.parametrize("kind", ["backbone", "discriminator"])
def test_networks_of_points_take_no_text(kind):
    with pytest.raises(InputError, match=r"'mlp', which .*context, pooled"):
        registry.load(kind, "mlp")(POINTS, {"pooled": 6, "context": 6})


@pytest.mark.parametrize("name", of("prior"))
def test_priors(name):
    network = moved(registry.load("backbone", "unet")(IMAGES, SIZES, **SMALL["unet"]))
    schedule = Schedule(torch.linspace(1, 0.5, 101))
    prior = moved(registry.load("prior", name)(IMAGES, SIZES, schedule, network, **SMALL.get(name, {})))
    prior.start(network)
    z = torch.randn(4, *prior.z_shape)
    x_T = prior(z, **COND)
    assert x_T.shape == (4, *IMAGES)
    assert prior.nfe == (0 if name == "gaussian" else 1)
    if prior.learns:
        assert not torch.allclose(prior(z, label=torch.tensor([1, 1, 1, 1])), x_T)
        assert not torch.allclose(prior(torch.randn(4, *prior.z_shape), **COND), x_T)
        assert torch.allclose(prior(z[1:2], label=COND["label"][1:2]), x_T[1:2], atol=1e-4)
        prior(z, **COND).sum().backward()
        assert not [key for key, p in prior.named_parameters() if p.grad is None]
    if name in ("shared", "copy"):
        assert torch.equal(prior(z, **COND), network(z, torch.full((4,), 101), **COND))


def test_a_generators_images_get_exact_noise_at_T():
    network = moved(registry.load("backbone", "unet")(IMAGES, {}, **SMALL["unet"]))
    schedule = Schedule(torch.linspace(1, 0.64, 101))  # alpha_T = 0.8, sigma_T = 0.6
    prior = registry.load("prior", "x0-then-noise")(IMAGES, {}, schedule, network, **SMALL["x0-then-noise"])
    z, eps = torch.randn(2, *prior.generator.z_shape), torch.randn(2, *IMAGES)
    expected = 0.8 * prior.generator(z) + 0.6 * eps
    assert torch.allclose(prior(torch.cat([z, eps.flatten(1)], 1)), expected, atol=1e-6)


def test_modulation_is_a_convolution_with_scaled_and_normalised_weights():
    from tdpm_cli.models.priors.stylegan2 import Modulated

    layer = Modulated(5, 7, 3, 4)
    x, style = torch.randn(2, 5, 6, 6), torch.randn(2, 4)
    expected = []
    for image, scale in zip(x, layer.style(style), strict=True):
        weight = layer.weight * layer.gain * scale[None, :, None, None]  # eq. 1 of StyleGAN2
        weight = weight / (weight.square().sum((1, 2, 3), keepdim=True) + 1e-8).sqrt()  # eq. 3
        expected.append(torch.nn.functional.conv2d(image[None], weight, padding=1))
    assert torch.allclose(layer(x, style), torch.cat(expected), atol=1e-5)


@pytest.mark.parametrize("options", [{"resample": "block"}, {"scale_shift": True}, {"head_channels": 8}])
def test_the_unets_options_of_adm(options):
    torch.manual_seed(0)
    network = moved(registry.load("backbone", "unet")(IMAGES, SIZES, **SMALL["unet"], **options))
    x, t = torch.randn(4, *IMAGES), torch.tensor([1, 10, 100, 500])
    out = network(x, t, **COND)
    assert out.shape == x.shape
    out.sum().backward()
    whole = {key: p.grad.clone() for key, p in network.named_parameters()}
    network.zero_grad()
    network.checkpointing = True
    network(x, t, **COND).sum().backward()
    assert all(torch.allclose(p.grad, whole[key], atol=1e-5) for key, p in network.named_parameters())


def test_the_unet_of_adm_has_its_published_size():
    with torch.device("meta"):
        network = registry.load("backbone", "unet")(
            (3, 64, 64), {"label": 1001}, channels=192, mult=[1, 2, 3, 4], blocks=3, attention=[32, 16, 8],
            head_channels=64, scale_shift=True, resample="block", dropout=0.1,
        )  # fmt: skip
    assert sum(p.numel() for p in network.parameters()) / 1e6 == pytest.approx(295.9, rel=0.005)  # Karras et al. 2022


def test_a_prior_of_x_0_has_exact_noise_at_T():
    network = moved(registry.load("backbone", "mlp")(POINTS, {}, width=16, blocks=1))
    schedule = Schedule(torch.linspace(1, 0.64, 101))  # alpha_T = 0.8, sigma_T = 0.6
    prior = registry.load("prior", "shared-x0")(POINTS, {}, schedule, network)
    z, eps = torch.randn(5, 2), torch.randn(5, 2)
    expected = 0.8 * network(z, torch.full((5,), 101)) + 0.6 * eps
    assert torch.allclose(prior(torch.cat([z, eps], 1)), expected, atol=1e-6)


@pytest.mark.parametrize("name", of("space"))
def test_spaces_round_trip(name):
    space = registry.load("space", name)(**SMALL["pixels"] if name == "pixels" else {})
    raw = torch.randint(0, 256, (300, *space.raw_shape), dtype=torch.uint8)
    raw = raw if name == "pixels" else torch.randn(300, *space.raw_shape)
    x = space.encode(raw)
    assert x.shape == (300, *space.shape)
    assert x.dtype == torch.float32
    again = space.decode(x)
    assert again.dtype == raw.dtype
    assert torch.equal(again, raw) if name == "pixels" else torch.allclose(again, raw)
    if space.bounds:
        assert space.bounds[0] <= x.min()
        assert x.max() <= space.bounds[1]
    picture = space.to_image(raw)
    assert min(picture.size) >= 64


@pytest.mark.parametrize("name", of("condition"))
def test_conditions(name):
    condition = registry.load("condition", name)(**SMALL.get(name, {}))
    cond = condition.encode({"label": torch.tensor([0, 3])})
    assert cond.keys() == condition.null(2).keys() == condition.sizes.keys()
    drawn = condition.encode(condition.draw(3, Noise(0, range(3))))
    for key in condition.sizes:
        assert condition.null(3)[key].shape == drawn[key].shape
        assert condition.null(3)[key].dtype == drawn[key].dtype
        assert not torch.equal(condition.null(3)[key], drawn[key])
    if condition.option:
        words = {"--labels": ["3", "0"], "--prompt": ["a cat", " a dog "]}[condition.option]
        asked = condition.encode(condition.parse(words, 3))
        assert all(torch.equal(value[0], value[2]) and not torch.equal(value[0], value[1]) for value in asked.values())


TEXTS = ["a red apple", "an apple that is red", "quarterly tax report", "red " * 300]


@pytest.mark.parametrize("name", of("text_encoder"))
def test_encoders(name):
    words = registry.load("text_encoder", name)().words(12, None)
    assert words.cut(TEXTS) == [TEXTS[3]]
    torch.manual_seed(0)
    text_encoder = words.text_encoder() or dict
    read = lambda texts: text_encoder(**words.encode(texts))
    found, alone = read(TEXTS), read(TEXTS[:1])
    assert found["context"].shape == (4, 12, words.dim)
    assert found["pooled"].shape == (4, words.dim)
    for value, same in zip(found.values(), alone.values(), strict=True):
        assert torch.allclose(value[:1], same, atol=1e-3)  # padding beside longer texts changes nothing
        assert not torch.allclose(value[0], value[2], atol=0.1)
    null = text_encoder(**words.null(2))
    assert not torch.allclose(null["pooled"][0], found["pooled"][0], atol=0.1)


def test_sentences_that_mean_the_same_are_near():
    one, two, other, _ = registry.load("text_encoder", "minilm")()(TEXTS, 12)
    near = lambda a, b: float(torch.cosine_similarity(a.pooled, b.pooled, 0))
    assert near(one, two) > near(one, other) + 0.3


@pytest.mark.parametrize("name", of("dataset"))
def test_data(name):
    options = SMALL.get(name, {})
    data = registry.load("dataset", name)(None, (1, 8, 8) if name == "digits" else POINTS, **options)
    raw, cond = data[[5, 0, 5]]
    assert len(raw) == 3
    assert torch.equal(raw[0], raw[2])
    assert torch.equal(data[[0]][0][0], raw[1])
    again = registry.load("dataset", name)(None, tuple(raw.shape[1:]), **options)
    assert torch.equal(again[[5]][0][0], raw[0])
    assert all(len(value) == 3 for value in cond.values())


@pytest.mark.parametrize("kind", ["mixture", "swissroll", "gaussians25"])
def test_points_fill_the_plane_as_they_should(kind):
    data = registry.load("dataset", "points")(None, (2,), kind=kind)
    raw, _ = data[range(len(data))]
    assert raw.isfinite().all()
    assert float(raw.abs().max()) < 3.5
    if kind == "mixture":
        assert float(raw.mean(0).norm()) > 1  # off-centre, so that N(0, I) is a wrong start


def test_unet_takes_pooled_and_sequence_conditions():
    sizes = {"pooled": 6, "context": 7}
    network = moved(registry.load("backbone", "unet")((3, 16, 16), sizes, **SMALL["unet"]))
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


@pytest.mark.parametrize("side", [1, 4, 5, 7, 8, 28])
def test_resnet_takes_any_size(side):
    critic = registry.load("discriminator", "resnet")((1, side, side + 1), {}, channel_base=32)
    assert critic(torch.randn(3, 1, side, side + 1)).shape == (3,)


def test_minibatch_std_sees_a_collapse():
    from tdpm_cli.models.discriminators.resnet import with_minibatch_std

    same, varied = torch.ones(8, 2, 3, 3), torch.randn(8, 2, 3, 3, generator=torch.Generator().manual_seed(0))
    assert float(with_minibatch_std(same, 4)[:, -1].max()) < 1e-3
    assert float(with_minibatch_std(varied, 4)[:, -1].min()) > 0.3
