import json

import torch

from tdpm_cli.config import load_config
from tdpm_cli.training import profiling
from tdpm_cli.training.train import profile


def test_a_profile_is_printed_and_written_and_nothing_is_trained(tiny_images, tmp_path, capsys):
    profile(load_config(tiny_images()), tmp_path, "run")
    assert [path.name for path in tmp_path.iterdir()] == ["run-profile.json"]
    names = {event.get("name") for event in json.loads((tmp_path / "run-profile.json").read_text())["traceEvents"]}
    assert "aten::conv2d" in names
    out = capsys.readouterr().out
    assert "where the time goes" in out
    (mfu,) = [line for line in out.splitlines() if "MFU" in line]
    assert 0 < float(mfu.split("%")[0].split()[-1]) < 100


def test_operators_come_with_the_slowest_first():
    def step():
        torch.randn(300, 300) @ torch.randn(300, 300)

    result = profiling.profile(step, torch.device("cpu"), None)
    seconds = [each for _, _, each in result.operators]
    assert seconds == sorted(seconds, reverse=True)
    assert "aten::mm" in [name for name, _, _ in result.operators]
    assert result.seconds > 0


def test_the_peak_is_that_of_a_product():
    assert profiling.matrix_peak("fp32", torch.device("cpu")) > 1e9
