import pytest

from tdpm_cli.config import registry


@pytest.mark.parametrize("kind", ["mixture", "swissroll", "gaussians25"])
def test_points_fill_the_plane_as_they_should(kind):
    data = registry.load("dataset", "points")(None, (2,), kind=kind)
    raw, _ = data[range(len(data))]
    assert raw.isfinite().all()
    assert float(raw.abs().max()) < 3.5
    if kind == "mixture":
        assert float(raw.mean(0).norm()) > 1  # off-centre, so that N(0, I) is a wrong start
