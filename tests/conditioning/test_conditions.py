import pytest
import torch
from components import SMALL, listed

from tdpm_cli.config import registry
from tdpm_cli.engine.noise import Noise


@pytest.mark.parametrize("name", listed("condition"))
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
