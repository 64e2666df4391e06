import pytest
import torch
from components import SMALL, listed

from tdpm_cli.config import registry


@pytest.mark.parametrize("name", listed("space"))
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
