import pytest
import torch
from components import SMALL, listed

from tdpm_cli.config import registry
from tdpm_cli.runtime import grids
from tdpm_cli.spaces.pixels import Pixels
from tdpm_cli.spaces.points import Points


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
    assert min(space.to_image(raw).size) >= 64


def test_points_are_divided_by_the_scale():
    raw = torch.tensor([[1.0, -6.0]])
    assert torch.equal(Points(scale=2.0).encode(raw), raw / 2)


def test_pixels_are_scaled_to_plus_minus_one_and_clamped():
    space = Pixels(shape=[1, 1, 2])
    assert torch.equal(space.encode(torch.tensor([[[[0, 255]]]], dtype=torch.uint8)), torch.tensor([[[[-1.0, 1.0]]]]))
    assert space.decode(torch.tensor([[[[-1.5, 1.5]]]])).tolist() == [[[[0, 255]]]]


def test_a_grid_of_pixels_is_drawn_once(monkeypatch):
    calls, plain = [], grids.image_grid

    def spy(*args, **options):
        calls.append(args)
        return plain(*args, **options)

    monkeypatch.setattr(grids, "image_grid", spy)
    raw = torch.randint(0, 256, (5, 3, 8, 8), dtype=torch.uint8)
    sheet = Pixels(shape=[3, 8, 8]).to_image(raw, 3)
    assert len(calls) == 1
    zoom = 400 // 32  # the grid is 3 × 8 pixels and 4 gaps of 2 wide
    assert sheet.size == (32 * zoom, 22 * zoom)
    assert sheet.tobytes() == plain(raw, 3, zoom=zoom).tobytes()
