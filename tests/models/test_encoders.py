import pytest
import torch
from components import COND, IMAGES, SIZES, SMALL, listed, perturbed, shape_for

from tdpm_cli.config import registry
from tdpm_cli.runtime.errors import InputError

LATENT = 4


@pytest.mark.parametrize("name", listed("encoder"))
def test_encoders(name):
    shape = shape_for(name)
    encoder = perturbed(registry.load("encoder", name)(shape, SIZES, LATENT, **SMALL.get(name, {})))
    x = torch.randn(4, *shape)
    mean, log_variance = encoder(x, **COND)
    assert mean.shape == log_variance.shape == (4, LATENT)
    for other in (encoder(x.flip(0), **COND), encoder(x, label=torch.tensor([1, 1, 1, 1]))):
        assert not torch.allclose(other[0], mean)
        assert not torch.allclose(other[1], log_variance)
    alone = encoder(x[1:2], label=COND["label"][1:2])
    assert torch.allclose(torch.cat(alone, 1), torch.cat([mean, log_variance], 1)[1:2], atol=1e-4)
    (mean.square().sum() + log_variance.sum()).backward()
    assert not [key for key, parameter in encoder.named_parameters() if parameter.grad is None]


@pytest.mark.parametrize("name", listed("encoder"))
def test_the_variance_is_finite_in_float32_for_any_input(name):
    shape = shape_for(name)
    encoder = perturbed(registry.load("encoder", name)(shape, {}, LATENT, **SMALL.get(name, {})))
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        mean, log_variance = encoder(1e4 * torch.randn(64, *shape))
    assert mean.dtype == log_variance.dtype == torch.float32
    variance = log_variance.exp()
    assert bool(variance.isfinite().all())
    assert float(variance.min()) > 0


def test_an_encoder_sees_the_text():
    encoder = perturbed(registry.load("encoder", "light")(IMAGES, {"pooled": 6, "context": 6}, LATENT, channels=[8, 8]))
    x, pooled, context = torch.randn(4, *IMAGES), torch.randn(4, 6), torch.randn(4, 3, 6)
    mean, _ = encoder(x, pooled=pooled, context=context)
    assert not torch.allclose(encoder(x, pooled=pooled.flip(0), context=context)[0], mean)


@pytest.mark.parametrize(
    ("shape", "sizes", "named"),
    [((2,), {}, r"\[2\]"), ((1, 7, 8), {}, "7 × 8"), ((1, 6, 6), {}, "6 × 6"), (IMAGES, {"low": 3}, "smaller image")],
)
@pytest.mark.parametrize(("kind", "context"), [("encoder", [LATENT]), ("discriminator", [])])
def test_light_networks_name_data_that_do_not_fit(kind, context, shape, sizes, named):
    with pytest.raises(InputError, match=rf"{kind}\.name is 'light'.*{named}"):
        registry.load(kind, "light")(shape, sizes, *context)
