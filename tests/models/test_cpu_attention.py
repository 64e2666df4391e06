import pytest
import torch
from components import IMAGES, SMALL
from torch.nn.functional import scaled_dot_product_attention

from tdpm_cli.config import registry
from tdpm_cli.models import cpu_attention as module
from tdpm_cli.models import light
from tdpm_cli.models.backbones import unet
from tdpm_cli.models.cpu_attention import FEW, attention


@pytest.mark.parametrize(("name", "home"), [("unet", unet), ("light-unet", light)])
def test_networks_attend_by_it(name, home, monkeypatch):
    calls = []
    monkeypatch.setattr(home, "attention", lambda *tensors: calls.append(1) or attention(*tensors))
    network = registry.load("backbone", name)(IMAGES, {}, **SMALL[name])
    network(torch.randn(2, *IMAGES), torch.tensor([1, 2]))
    assert calls


@torch.no_grad()
@pytest.mark.parametrize(("tokens", "seen"), [(64, 64), (256, 256), (49, 77)])
def test_plain_products_in_bf16_are_attention(tokens, seen):
    torch.manual_seed(0)
    query, key, value = (torch.randn(2, 3, n, 32).bfloat16() for n in (tokens, seen, seen))
    exact = scaled_dot_product_attention(query.double(), key.double(), value.double())
    assert (attention(query, key, value).double() - exact).norm() < 0.01 * exact.norm()


def test_only_a_few_tokens_in_bf16_are_attended_to_by_plain_products_and_not_in_training(monkeypatch):
    monkeypatch.setattr(module, "scaled_dot_product_attention", lambda *inputs: "fused")
    few = torch.randn(1, 1, FEW, 4).bfloat16()
    many = torch.randn(1, 1, FEW + 1, 4).bfloat16()
    assert attention(few, few, few) == "fused"
    with torch.no_grad():
        assert attention(few, few, few).shape == few.shape
        for inputs in ((few.float(),) * 3, (many,) * 3, (few, many, many)):
            assert attention(*inputs) == "fused"
