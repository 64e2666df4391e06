"""Checkpoints: complete or absent, verified before an older one is removed, and one owner for each run."""

import errno
import json
import os
import shutil
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest
import torch
import yaml
from helpers import sample

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints import writer as saving
from tdpm_cli.checkpoints.checkpoint import Snapshot
from tdpm_cli.config import load_config
from tdpm_cli.runtime import locks as lock
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import WriteError
from tdpm_cli.sampling import build
from tdpm_cli.training.train import train


def snapshot(seen, value=1.0):
    network = torch.nn.Linear(2, 2)
    torch.nn.init.constant_(network.weight, value)
    optimizer = torch.optim.Adam(network.parameters(), fused=True)
    network(torch.ones(1, 2)).sum().backward()
    optimizer.step()
    tensors = {name: tensor.clone() for name, tensor in weights.tensors_of(network).items()}
    state = {"seen": seen, "step": seen // 10, "ema": [100], "skipped": {}, "config": {}}
    files = {"ema-100": (tensors, {"a": "b"}), "model": (tensors, {})}
    return Snapshot(seen, files, {"denoiser": optimizer.state_dict()}, state)


def test_what_was_saved_is_what_is_read(tmp_path):
    before = snapshot(10)
    folder = checkpoint.save(tmp_path, before, keep=2)
    assert folder == checkpoint.newest(tmp_path) == tmp_path / "checkpoints" / "000000010"
    assert formats.read_state(folder)["seen"] == 10
    tensors, header = weights.read_weights(folder / "ema-100.safetensors")
    assert header == {"a": "b"}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.weights["model"][0].items())
    again = formats.read_optimizers(folder)["denoiser"]
    whole = before.optimizers["denoiser"]
    assert json.dumps(again["param_groups"]) == json.dumps(whole["param_groups"])
    assert all(
        torch.equal(again["state"][k][key], value) for k in whole["state"] for key, value in whole["state"][k].items()
    )
    assert not list(folder.glob("*.pt"))  # nothing that could be executed
    mask = stat.S_IMODE((folder / "state.json").stat().st_mode)
    assert all(stat.S_IMODE(path.stat().st_mode) == mask for path in folder.iterdir())


def test_an_older_one_goes_only_after_the_new_one_is_verified(tmp_path, monkeypatch):
    for seen in (10, 20):
        checkpoint.save(tmp_path, snapshot(seen), keep=2)
    order = []
    for place, name in ((os, "fsync"), (Path, "rename"), (formats, "verify"), (shutil, "rmtree")):
        plain = getattr(place, name)

        def spy(*args, plain=plain, name=name, **kwargs):
            order.append((name, str(args[0])))
            return plain(*args, **kwargs)

        monkeypatch.setattr(place, name, spy)
    checkpoint.save(tmp_path, snapshot(30), keep=2)
    names = [name for name, _ in order]
    assert [name for name in names if name != "fsync"] == ["rename", "verify", "rename", "rmtree"]
    assert names.index("rename") >= 6  # five files and the folder are on the disk before it has its name
    assert names.index("verify") > max(k for k, name in enumerate(names) if name == "fsync")
    assert "000000010" in order[-1][1]
    assert [path.name for path in checkpoint.list_checkpoints(tmp_path)] == ["000000020", "000000030"]


def test_weights_that_are_not_finite_are_not_saved(tmp_path):
    checkpoint.save(tmp_path, snapshot(10), keep=2)
    with pytest.raises(InputError, match=r"infinite or NaN after 0.02 kimg"):
        checkpoint.save(tmp_path, snapshot(20, float("inf")), keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000010"]


DAMAGE = {
    "cut short": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "a byte is another": lambda folder: flip(folder / "optimizers.safetensors", -1),
    "a byte of the manifest": lambda folder: flip(folder / "manifest.json", 3),
    "state lost": lambda folder: (folder / "state.json").unlink(),
    "manifest lost": lambda folder: (folder / "manifest.json").unlink(),
    "swapped": lambda folder: shutil.copy(folder / "model.safetensors", folder / "optimizers.safetensors"),
    "empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "of another": lambda folder: (shutil.rmtree(folder), shutil.copytree(folder.with_name("000000010"), folder)),
}


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_one_is_skipped_and_named_and_an_error_when_asked_for(tmp_path, capsys, damage):
    older, newer = (checkpoint.save(tmp_path, snapshot(seen), keep=2) for seen in (10, 20))
    DAMAGE[damage](newer)
    assert checkpoint.newest(tmp_path) == older
    assert f"warning: skipped a damaged checkpoint: {newer}" in capsys.readouterr().err
    with pytest.raises(formats.Damaged, match=str(newer)):
        formats.verify(newer)
    DAMAGE["cut short"](older)
    with pytest.raises(InputError, match=r"all 2 checkpoints are damaged"):
        checkpoint.newest(tmp_path)


def test_a_run_continues_from_the_newest_sound_one(tiny, tmp_path, capsys):
    run = train(load_config(tiny()), tmp_path, "run")
    whole = {path.name: path.read_bytes() for path in checkpoint.list_checkpoints(run)[-1].glob("*.json")}
    flip(checkpoint.list_checkpoints(run)[-1] / "model.safetensors", -1)
    with pytest.raises(InputError, match=r"model.safetensors"):
        train(load_config(tiny()), tmp_path, "run", resume=str(checkpoint.list_checkpoints(run)[-1]))
    train(load_config(tiny()), tmp_path, "run")
    assert "continuing" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir() if not path.name.isdecimal()] == ["000000256.damaged"]
    again = {path.name: path.read_bytes() for path in checkpoint.list_checkpoints(run)[-1].glob("*.json")}
    assert again["state.json"] == whole["state.json"]
    flip(checkpoint.newest_weights(run), -1)
    sample(tmp_path / "out", 4, run)
    assert "warning: skipped a damaged checkpoint" in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["trained_images"] == 192


def test_a_newer_format_is_told(tmp_path):
    folder = checkpoint.save(tmp_path, snapshot(10), keep=2)
    content = json.loads((folder / "manifest.json").read_text()) | {"format": 3}
    (folder / "manifest.json").write_text(json.dumps(content, indent=1))
    with pytest.raises(formats.Damaged, match=r"format 3; .*formats up to 2"):
        formats.verify(folder)


def test_a_batch_of_another_size_is_told_and_continues_at_the_right_image(tiny, tmp_path, capsys):
    run = train(load_config(tiny("train.duration=128")), tmp_path, "run")
    train(load_config(tiny("train.duration=192", "train.batch=64", "train.batch_gpu=32")), tmp_path, "run")
    told = capsys.readouterr().err
    assert "note: train.batch: 32 there, 64 here" in told
    assert "continuing" in told
    state = formats.read_state(checkpoint.newest(run))
    assert (state["seen"], state["step"]) == (192, 5)


def test_a_snapshot_is_written_while_training_goes_on(tmp_path, monkeypatch, capsys):
    written, go = [], threading.Event()
    plain = checkpoint.save

    def slow(run, snapshot, keep):
        assert go.wait(60)
        written.append(snapshot.seen)
        return plain(run, snapshot, keep)

    monkeypatch.setattr(checkpoint, "save", slow)
    monkeypatch.setattr(saving, "LONG_WAIT", 0.05)
    saver = saving.Saver(tmp_path, 2, "stop")
    saver.put(lambda: snapshot(10))  # returns at once
    saver.check()
    assert written == []
    threading.Timer(0.2, go.set).start()
    saver.put(lambda: snapshot(20))  # waits for the first, so that there are never more than two in memory
    assert written == [10]
    saver.last(lambda: snapshot(30))
    assert written == [10, 20, 30]
    saver.close()
    assert capsys.readouterr().err.count("train.snapshot") == 1


def full_disk(monkeypatch, times):
    """Let the disk be full the first `times` that a checkpoint is sealed."""
    plain, left = formats.seal, [times]

    def seal(folder):
        left[0] -= 1
        if left[0] >= 0:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        plain(folder)

    monkeypatch.setattr(formats, "seal", seal)


def test_a_full_disk_stops_the_run_and_leaves_the_older_ones(tiny, tmp_path, monkeypatch):
    run = train(load_config(tiny("train.duration=128")), tmp_path, "run")
    full_disk(monkeypatch, 1000)
    with pytest.raises(WriteError, match=r"No space left on device.*older ones are intact"):
        train(load_config(tiny()), tmp_path, "run")
    assert checkpoint.newest(run).name == "000000128"
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["000000064", "000000128"]


@pytest.mark.skipif(shutil.which("unshare") is None, reason="needs a system that mounts in a namespace (Linux)")
def test_a_disk_that_is_really_full_stops_the_run_and_the_older_checkpoint_loads(tiny, tmp_path):
    disk, preset = tmp_path / "disk", tmp_path / "preset.yaml"
    disk.mkdir()
    preset.write_text(yaml.safe_dump(tiny("train.keep=2", "train.duration=100k", "train.snapshot=64")))
    run = train(load_config(tiny("train.duration=64")), tmp_path, "measured")
    size = sum(path.stat().st_size + 4096 for path in checkpoint.list_checkpoints(run)[-1].iterdir())
    tdpm = Path(sys.executable).with_name("tdpm")
    script = (
        f"mount -t tmpfs -o size={5 * size // 2} none {disk} || exit 77\n"
        f"{tdpm} train --preset {preset} --outdir {disk} --name run; echo status $?\n"
        f"rm -r {disk}/run/grids; {tdpm} sample --model {disk}/run --n 4 {tmp_path}/out; echo status $?"
    )
    done = subprocess.run(["unshare", "--map-root-user", "--mount", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare:" in done.stderr:
        pytest.skip("this system lets nobody mount a small disk")
    assert done.stdout.split("status ")[1][0] == "2", done.stderr
    assert "No space left on device" in done.stderr
    assert "older ones are intact" in done.stderr
    assert done.stdout.rstrip().endswith("status 0"), done.stderr


def test_training_goes_on_beyond_a_full_disk_where_asked(tiny, tmp_path, monkeypatch, capsys):
    full_disk(monkeypatch, 2)
    run = train(load_config(tiny("train.on_save_error=continue")), tmp_path, "run")
    assert capsys.readouterr().err.count("train.on_save_error") == 2
    assert [path.name for path in checkpoint.list_checkpoints(run)] == ["000000192", "000000256"]
    full_disk(monkeypatch, 1000)  # the last one must be saved, or the command has failed
    with pytest.raises(WriteError):
        train(load_config(tiny("train.on_save_error=continue", "train.duration=320")), tmp_path, "run")


def test_a_run_has_one_owner_and_a_killed_one_is_none(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tdpm_cli.runtime.locks import lock_run\n"
        "with lock_run(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"another process trains this run \(process {other.pid} on "):  # noqa: SIM117
        with lock.lock_run(tmp_path):
            pass
    other.kill()
    other.wait()
    other.stdout.close()
    assert str(other.pid) in (tmp_path / "lock").read_text()
    with lock.lock_run(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_what_a_killed_writer_left_goes(tmp_path):
    checkpoint.save(tmp_path, snapshot(10), keep=2)
    for name in ("000000020.part", "000000005.part"):
        (tmp_path / "checkpoints" / name).mkdir()
    checkpoint.save(tmp_path, snapshot(20), keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000010", "000000020"]


def test_weights_are_looked_at_before_memory_is_taken(tiny, tmp_path, monkeypatch):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    tensors, header = weights.read_weights(checkpoint.newest_weights(run))
    plain = json.loads(header["config"])
    plain["backbone"]["width"] = 1 << 16
    plain["backbone"]["blocks"] = 3
    file = tmp_path / "hostile.safetensors"
    weights.write_tensors(file, tensors, header | {"config": json.dumps(plain)})
    made = build.build
    monkeypatch.setattr(build, "build", lambda config, device: made(config, {"meta": "meta"}[str(device)]))
    with pytest.raises(InputError, match=r"weights of another model: it lacks"):
        build.load_model(file)
