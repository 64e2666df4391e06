"""A truncation point in nats: found from the data, the same for every run, and computed once."""

import pytest

from tdpm_cli.config import load_config
from tdpm_cli.engine.information import spectrum
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import information
from tdpm_cli.sampling.build import build, build_schedule, check_together, open_dataset
from tdpm_cli.training.train import train


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of spectra."""
    monkeypatch.setattr(information, "cache_folder", lambda: tmp_path / "spectra")
    return tmp_path / "spectra"


def in_nats(preset, nats):
    return load_config(preset(f"schedule.truncate={{nats: {nats}}}"))


def test_the_step_is_the_one_that_asks_these_nats(tiny_images):
    data, config = open_dataset(in_nats(tiny_images, 12))
    schedule = build_schedule(config)
    eigenvalues = spectrum(build(config).space.encode(data[range(len(data))][0]))
    around = [schedule.untruncated.nats(t, eigenvalues) for t in (schedule.T - 1, schedule.T, schedule.T + 1)]
    assert abs(around[1] - 12) == min(abs(nats - 12) for nats in around)


def test_a_run_records_the_step_and_continues(tiny_images, tmp_path):
    config = in_nats(tiny_images, 12)
    check_together(config)
    run = train(config, tmp_path, "run")
    assert train(config, tmp_path, "run") == run
    stored = load_config(run / "config.yaml")
    assert stored.schedule.truncate == open_dataset(config)[1].schedule.truncate
    assert stored.schedule.truncate.keys() == {"step"}


def test_the_spectrum_is_computed_once(tiny_images, monkeypatch, cache):
    _, config = open_dataset(in_nats(tiny_images, 12))
    (file,) = cache.iterdir()
    monkeypatch.setattr(information, "_compute", lambda *_: pytest.fail("computed again"))
    assert open_dataset(in_nats(tiny_images, 12))[1] == config
    monkeypatch.undo()
    monkeypatch.setattr(information, "cache_folder", lambda: cache)
    file.write_text("[1, 2")  # damaged: computed again
    assert open_dataset(in_nats(tiny_images, 12))[1] == config


@pytest.mark.parametrize("nats", ["1e9", "1e-12"])
def test_nats_out_of_reach_name_the_range(tiny_images, nats):
    with pytest.raises(InputError, match=r"schedule\.truncate.*accepted: \S+ to \S+"):
        open_dataset(in_nats(tiny_images, nats))


@pytest.mark.parametrize("nats", ["0", "-3", "many", "true"])
def test_nats_that_are_none_are_rejected(tiny_images, nats):
    with pytest.raises(InputError, match=r"schedule\.truncate\.nats"):
        in_nats(tiny_images, nats)


def test_networks_are_not_built_before_the_step_is_known(tiny_images):
    with pytest.raises(InputError, match=r"schedule\.truncate"):
        build(in_nats(tiny_images, 12))
