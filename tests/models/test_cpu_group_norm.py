import pytest
import torch
from torch import nn
from torch.nn.functional import group_norm

from tdpm_cli.models import cpu_group_norm as module
from tdpm_cli.models.cpu_group_norm import GroupNorm


@pytest.mark.parametrize("shape", [(3, 16, 32, 32), (2, 64, 40, 33), (2, 16, 8, 8)])
def test_gradients_of_bf16_are_those_of_float64_rounded_once(shape):
    torch.manual_seed(0)
    x = (torch.randn(shape) + 3).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    gradient = torch.randn(shape).bfloat16()
    norm = GroupNorm(8, shape[1], eps=1e-6)
    nn.init.normal_(norm.weight), nn.init.normal_(norm.bias)
    weights = [norm.weight, norm.bias]
    gradients = torch.autograd.grad(norm(x), [x, *weights], gradient)
    exact = group_norm(x.double(), 8, *(weight.double() for weight in weights), eps=1e-6)
    expected = torch.autograd.grad(exact, [x, *weights], gradient.double())
    for ours, theirs in zip(gradients, expected, strict=True):
        assert (ours.double() - theirs).norm() < 1e-3 * theirs.norm()


def test_large_images_in_bf16_go_back_by_our_own_pass_and_nothing_else_does(monkeypatch):
    monkeypatch.setattr(module._ByExample, "apply", lambda x, *_: x * 0)
    norm = GroupNorm(2, 4)
    last = {"memory_format": torch.channels_last}
    large = torch.randn(1, 4, 32, 32).bfloat16().contiguous(**last)
    assert not norm(large).any()
    for other in (large.float(), large.contiguous(), large[:, :, :16].contiguous(**last), large.flatten(2)):
        assert norm(other).any()
    with torch.no_grad():
        assert norm(large).any()


def test_what_has_no_second_derivative_says_so():
    x = torch.randn(1, 4, 32, 32).bfloat16().contiguous(memory_format=torch.channels_last).requires_grad_()
    (gradient,) = torch.autograd.grad(GroupNorm(2, 4)(x).square().sum(), x, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        gradient.sum().backward()
