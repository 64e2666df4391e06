import pytest
import torch
from components import POINTS, SMALL, listed

from tdpm_cli.config import registry


@pytest.mark.parametrize("name", listed("dataset"))
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
