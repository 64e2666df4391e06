"""A time budget: the lengths of stages, and that a run keeps those that it was begun with."""

import pytest

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.training.budget import lengths_within


@pytest.mark.parametrize("speeds", [[100.0, 50.0, 80.0], [900.0, 900.0, 900.0]])
def test_stages_fill_the_time_and_keep_their_proportions(speeds):
    preset = [72_000, 48_000, 400_000]
    lengths = lengths_within(3600, preset, speeds, 64)
    assert sum(length / speed for length, speed in zip(lengths, speeds, strict=True)) == pytest.approx(3600, rel=0.05)
    assert all(length % 64 == 0 for length in lengths)
    factors = [length / original for length, original in zip(lengths, preset, strict=True)]
    assert factors == pytest.approx([factors[0]] * 3, rel=0.05)


def test_a_budget_that_is_too_short_names_one_that_is_not():
    with pytest.raises(InputError, match=r"--budget 10 s.*stage 2") as caught:
        lengths_within(10, [72_000, 480, 400_000], [100.0, 100.0, 100.0], 64)
    needed = float(str(caught.value).rsplit("at least ", 1)[1].split()[0])
    assert min(lengths_within(needed + 1, [72_000, 480, 400_000], [100.0, 100.0, 100.0], 64)) >= 64
