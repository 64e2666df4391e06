import os
import platform
import subprocess
import sys
import time

import pytest
import torch
from torch import nn

from tdpm_cli.config import load_config
from tdpm_cli.config.presets import read_yaml
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build
from tdpm_cli.sampling.settings import settings_of
from tdpm_cli.training.train import train

CPU = torch.device("cpu")


def test_cores_are_counted_on_systems_without_affinity(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.delattr(os, "sched_getaffinity", raising=False)
    assert cores() == os.cpu_count()


@pytest.mark.parametrize(("slower", "chosen"), [("fp32", "bf16"), ("bf16", "fp32"), (None, "fp32")])
def test_auto_is_the_faster_format_and_fp32_without_a_gain(slower, chosen):
    def work():
        kind = "bf16" if torch.is_autocast_enabled("cpu") else "fp32"
        time.sleep(0.05 if kind == slower else 0.01)

    assert devices.fastest(work, CPU) == chosen


def test_a_run_keeps_the_precision_that_auto_chose(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(devices, "fastest", lambda work, where: work() or "bf16")
    run = train(load_config(tiny("train.precision=auto", "train.duration=64")), tmp_path, "run")
    assert read_yaml((run / "config.yaml").read_text(), "")["train"]["precision"] == "bf16"
    monkeypatch.setattr(devices, "fastest", lambda work, where: "fp32")
    train(load_config(tiny("train.precision=auto", "train.duration=96")), tmp_path, "run")
    assert read_yaml((run / "config.yaml").read_text(), "")["train"]["precision"] == "bf16"


def test_sampling_tries_a_model_once(tiny, monkeypatch):
    tried = []
    monkeypatch.setattr(devices, "fastest", lambda work, where: tried.append(work()) or "bf16")
    components = build(load_config(tiny("sample.precision=auto")))
    assert [settings_of(components).precision for _ in range(2)] == ["bf16", "bf16"]
    assert len(tried) == 1


def test_a_compiler_that_fails_is_reported_and_not_used(monkeypatch, capsys):
    def broken(call, **options):
        def fail(*args):
            raise RuntimeError("no C++ compiler\nand a long story")

        return fail

    monkeypatch.setattr(torch, "compile", broken)
    layer = nn.Linear(2, 2)
    devices.compile_network(layer, lambda: layer(torch.zeros(1, 2)))
    assert "no C++ compiler" in capsys.readouterr().err
    assert layer(torch.zeros(1, 2)).shape == (1, 2)


def test_a_compiled_network_is_used(monkeypatch, capsys):
    calls = []
    monkeypatch.setattr(torch, "compile", lambda call, **options: lambda *args: calls.append(1) or call(*args))
    layer = nn.Linear(2, 2)
    devices.compile_network(layer, lambda: layer(torch.zeros(1, 2)))
    layer(torch.zeros(1, 2))
    assert len(calls) == 2
    assert "compiled in" in capsys.readouterr().err


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc has a setting for freed memory")
def test_freed_memory_is_kept_for_the_next_step(tmp_path):
    script = """
import resource, sys, torch
from tdpm_cli.runtime.malloc import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
faults = lambda: resource.getrusage(resource.RUSAGE_SELF).ru_minflt
def work():
    for _ in range(10):
        torch.ones(1 << 23)
    return faults()
print(-work() + work())
"""
    command = [sys.executable, "-c", script]
    kept, returned = (
        int(subprocess.run([*command, how], cwd=tmp_path, check=True, capture_output=True, text=True).stdout)
        for how in ("keep", "return")
    )
    assert kept < returned / 3


def test_a_number_format_that_the_device_lacks_is_rejected(monkeypatch):
    gpu = torch.device("cuda")
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: False)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda where: "an old GPU")
    with pytest.raises(InputError, match=r"train\.precision.*'bf16'.*an old GPU.*fp32"):
        devices.check("train.precision", "bf16", gpu)
    devices.check("train.precision", "fp32", gpu)
    devices.check("train.precision", "bf16", CPU)
    assert devices.fastest(lambda: None, gpu) == "fp32"


def test_a_separate_prior_and_a_fixed_denoiser_are_compiled(tiny_images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(torch, "compile", lambda call, **options: call)
    plain = tiny_images("prior.name=copy", "train.compile=true", "train.objective=prior", "train.duration=32")
    train(load_config(plain), tmp_path, "run")
    output = capsys.readouterr().err
    assert output.count("compiled in") == 2
    assert "failed" not in output
