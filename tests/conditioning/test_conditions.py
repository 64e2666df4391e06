import pytest
import torch
from components import SMALL, listed

from tdpm_cli.config import registry
from tdpm_cli.engine.noise import Noise

VALUES = {"--labels": ["3", "0"], "--prompt": ["a cat", " a dog "]}


def condition_named(name):
    return registry.load("condition", name)(**SMALL.get(name, {}))


@pytest.mark.parametrize("name", listed("condition"))
def test_conditions_of_labels_drawn_and_null_have_the_same_form(name):
    condition = condition_named(name)
    of_labels = condition.encode({"label": torch.tensor([0, 3, 3])})
    drawn, null = condition.encode(condition.draw(3, Noise(0, range(3)))), condition.null(3)
    assert of_labels.keys() == drawn.keys() == null.keys() == condition.sizes.keys()
    for key in condition.sizes:
        assert of_labels[key].shape == drawn[key].shape == null[key].shape
        assert of_labels[key].dtype == drawn[key].dtype == null[key].dtype
        assert not torch.equal(null[key], drawn[key])
        assert torch.equal(of_labels[key][1], of_labels[key][2])
        assert not torch.equal(of_labels[key][0], of_labels[key][1])


@pytest.mark.parametrize("name", [name for name in listed("condition") if condition_named(name).option])
def test_the_values_of_an_option_repeat(name):
    condition = condition_named(name)
    requested = condition.encode(condition.parse(VALUES[condition.option], 3))
    for value in requested.values():
        assert torch.equal(value[0], value[2])
        assert not torch.equal(value[0], value[1])
