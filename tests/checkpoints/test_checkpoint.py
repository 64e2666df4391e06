"""Checkpoints: complete or absent, verified before an older one is removed, and one owner for each run."""

import errno
import hashlib
import json
import os
import re
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
from tdpm_cli.checkpoints.runs import newest_run
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


def test_a_saved_checkpoint_is_read_back(tmp_path):
    before = snapshot(10)
    folder = checkpoint.save(tmp_path, before, keep=2)
    assert folder == checkpoint.newest(tmp_path) == tmp_path / "checkpoints" / "000000010"
    assert formats.read_state(folder)["seen"] == 10
    tensors, header = weights.read_weights(folder / "ema-100.safetensors")
    assert header == {"a": "b"}
    assert all(torch.equal(tensors[name], tensor) for name, tensor in before.weights["model"][0].items())
    again = formats.read_optimizers(folder)["denoiser"]
    optimizer = before.optimizers["denoiser"]
    assert json.dumps(again["param_groups"]) == json.dumps(optimizer["param_groups"])
    assert all(
        torch.equal(again["state"][k][key], value)
        for k, moments in optimizer["state"].items() for key, value in moments.items()
    )  # fmt: skip
    assert not list(folder.glob("*.pt"))  # nothing that could be executed
    mask = stat.S_IMODE((folder / "state.json").stat().st_mode)
    assert all(stat.S_IMODE(path.stat().st_mode) == mask for path in folder.iterdir())


def test_an_older_checkpoint_is_removed_only_after_the_new_one_is_verified(tmp_path, monkeypatch):
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
    with pytest.raises(InputError, match=r"0\.02 kimg.*train\.denoiser_lr"):
        checkpoint.save(tmp_path, snapshot(20, float("inf")), keep=2)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["000000010"]


DAMAGE = {
    "truncated": lambda folder: os.truncate(folder / "model.safetensors", 100),
    "changed byte": lambda folder: flip(folder / "optimizers.safetensors", -1),
    "changed byte of the manifest": lambda folder: flip(folder / "manifest.json", 3),
    "state missing": lambda folder: (folder / "state.json").unlink(),
    "manifest missing": lambda folder: (folder / "manifest.json").unlink(),
    "swapped": lambda folder: shutil.copy(folder / "model.safetensors", folder / "optimizers.safetensors"),
    "empty": lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    "another checkpoint": lambda folder: (
        shutil.rmtree(folder),
        shutil.copytree(folder.with_name("000000010"), folder),
    ),
}


def flip(path, position):
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_checkpoint_is_skipped_and_reported_and_an_error_by_path(tmp_path, capsys, damage):
    older, newer = (checkpoint.save(tmp_path, snapshot(seen), keep=2) for seen in (10, 20))
    DAMAGE[damage](newer)
    assert checkpoint.newest(tmp_path) == older
    assert str(newer) in capsys.readouterr().err
    with pytest.raises(formats.Damaged, match=str(newer)):
        formats.verify(newer)
    DAMAGE["truncated"](older)
    with pytest.raises(InputError, match=rf"{tmp_path}: .*\b2 checkpoints.*--resume never"):
        checkpoint.newest(tmp_path)


def test_a_run_continues_from_the_newest_sound_checkpoint(tiny, tmp_path, capsys):
    run = train(load_config(tiny()), tmp_path, "run")
    before = {path.name: path.read_bytes() for path in checkpoint.list_checkpoints(run)[-1].glob("*.json")}
    flip(checkpoint.list_checkpoints(run)[-1] / "model.safetensors", -1)
    with pytest.raises(InputError, match=r"model.safetensors"):
        train(load_config(tiny()), tmp_path, "run", resume=str(checkpoint.list_checkpoints(run)[-1]))
    train(load_config(tiny()), tmp_path, "run")
    assert "continuing" in capsys.readouterr().err
    assert [path.name for path in (run / "checkpoints").iterdir() if not path.name.isdecimal()] == ["000000256.damaged"]
    again = {path.name: path.read_bytes() for path in checkpoint.list_checkpoints(run)[-1].glob("*.json")}
    assert again["state.json"] == before["state.json"]
    damaged = checkpoint.newest_weights(run)
    flip(damaged, -1)
    sample(tmp_path / "out", 4, run)
    assert str(damaged.parent) in capsys.readouterr().err
    assert json.loads((tmp_path / "out" / "samples.json").read_text())["trained_images"] == 192


@pytest.mark.parametrize(("name", "version"), [("manifest.json", 3), ("manifest.json", 1), ("state.json", 1)])
def test_another_format_is_reported_by_its_number(tmp_path, capsys, name, version):
    folder = checkpoint.save(tmp_path, snapshot(10), keep=2)
    content = json.loads((folder / name).read_text()) | {"format": version}
    (folder / name).write_text(json.dumps(content, indent=1))
    if name == "state.json":  # format 1 had no manifest
        (folder / "manifest.json").unlink()
    with pytest.raises(formats.Damaged, match=rf"{folder}: .*\b{version}\b.*\b2\b"):
        formats.verify(folder)
    with pytest.raises(InputError, match=str(tmp_path)):
        checkpoint.newest_weights(tmp_path)
    assert f"format {version}" in capsys.readouterr().err


def test_weights_are_hashed_once_when_a_run_is_loaded(tiny, tmp_path, monkeypatch):
    run, hashed = train(load_config(tiny("train.duration=64")), tmp_path, "run"), []

    def spy(path, plain=formats.sha256):
        hashed.append(path.suffix)
        return plain(path)

    monkeypatch.setattr(formats, "sha256", spy)
    monkeypatch.setattr(build, "sha256", spy)
    model = build.load_model(run)
    assert hashed.count(".safetensors") == 1
    assert model.sha256 == hashlib.sha256(model.source.read_bytes()).hexdigest()


def test_another_batch_size_is_reported_and_continues_at_the_right_image(tiny, tmp_path, capsys):
    run = train(load_config(tiny("train.duration=128")), tmp_path, "run")
    train(load_config(tiny("train.duration=192", "train.batch=64", "train.batch_gpu=32")), tmp_path, "run")
    output = capsys.readouterr().err
    assert re.search(r"train\.batch: .*\b32\b.*\b64\b", output)
    assert "continuing" in output
    state = formats.read_state(checkpoint.newest(run))
    assert (state["seen"], state["step"]) == (192, 5)


def test_a_snapshot_is_written_while_training_continues(tmp_path, monkeypatch, capsys):
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
    assert written[:1] == [10]
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


def test_a_full_disk_stops_the_run_and_leaves_the_older_checkpoints(tiny, tmp_path, monkeypatch):
    run = train(load_config(tiny("train.duration=128")), tmp_path, "run")
    full_disk(monkeypatch, 1000)
    with pytest.raises(WriteError, match=r"000000192: .*No space left on device"):
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
    assert "checkpoints/" in done.stderr
    assert done.stdout.rstrip().endswith("status 0"), done.stderr


def test_training_continues_after_a_full_disk_with_on_save_error(tiny, tmp_path, monkeypatch, capsys):
    full_disk(monkeypatch, 2)
    run = train(load_config(tiny("train.on_save_error=continue")), tmp_path, "run")
    assert capsys.readouterr().err.count("train.on_save_error") == 2
    assert [path.name for path in checkpoint.list_checkpoints(run)] == ["000000192", "000000256"]
    full_disk(monkeypatch, 1000)  # the last one must be saved, or the command has failed
    with pytest.raises(WriteError):
        train(load_config(tiny("train.on_save_error=continue", "train.duration=320")), tmp_path, "run")


def test_a_run_has_one_owner_and_a_killed_process_owns_nothing(tmp_path):
    code = (
        "import sys, time; from pathlib import Path; from tdpm_cli.runtime.locks import lock_run\n"
        "with lock_run(Path(sys.argv[1])): print('held', flush=True); time.sleep(60)"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path)], cwd=tmp_path, stdout=subprocess.PIPE, text=True
    )
    assert other.stdout.readline() == "held\n"
    with pytest.raises(InputError, match=rf"\b{other.pid}\b"):  # noqa: SIM117
        with lock.lock_run(tmp_path):
            pass
    other.kill()
    other.wait()
    other.stdout.close()
    assert str(other.pid) in (tmp_path / "lock").read_text()
    with lock.lock_run(tmp_path):
        assert str(os.getpid()) in (tmp_path / "lock").read_text()
    assert (tmp_path / "lock").read_text() == ""


def test_the_remains_of_a_killed_writer_are_removed(tmp_path):
    checkpoint.save(tmp_path, snapshot(10), keep=2)
    for name in ("000000020.part", "000000005.part"):
        (tmp_path / "checkpoints" / name).mkdir()
    checkpoint.save(tmp_path, snapshot(20), keep=2)
    assert sorted(path.name for path in (tmp_path / "checkpoints").iterdir()) == ["000000010", "000000020"]


def test_weights_are_checked_before_memory_is_allocated(tiny, tmp_path, monkeypatch):
    run = train(load_config(tiny("train.duration=64")), tmp_path, "run")
    tensors, header = weights.read_weights(checkpoint.newest_weights(run))
    plain = json.loads(header["config"])
    plain["backbone"]["width"] = 1 << 16
    plain["backbone"]["blocks"] = 3
    file = tmp_path / "hostile.safetensors"
    weights.write_tensors(file, tensors, header | {"config": json.dumps(plain)})
    plain_build = build.build
    monkeypatch.setattr(build, "build", lambda config, device: plain_build(config, {"meta": "meta"}[str(device)]))
    with pytest.raises(InputError, match=r"hostile\.safetensors: .*denoiser\."):
        build.load_model(file)


def add_junk(folder, kind, target):
    """Put something that is no checkpoint among checkpoints."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    if kind == "dangling link":
        folder.symlink_to(target / "missing")
    elif kind == "link to a file":
        (target / "precious.txt").write_text("precious")
        folder.symlink_to(target / "precious.txt")
    elif kind == "file":
        folder.write_text("junk")
    elif kind == "fifo":
        os.mkfifo(folder)
    else:
        folder.mkdir()
        (folder / "notes.txt").write_text("junk")


JUNK = ["dangling link", "link to a file", "file", "fifo", "folder"]


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("name", ["000000020", "999", "٣"])
def test_junk_among_checkpoints_hides_none(tmp_path, kind, name):
    run = tmp_path / "runs" / "good"
    checkpoint.save(run, snapshot(10), keep=2)
    add_junk(run / "checkpoints" / name, kind, tmp_path)
    add_junk(tmp_path / "runs" / "bad" / "checkpoints" / name, kind, tmp_path)
    assert checkpoint.newest(run) == run / "checkpoints" / "000000010"
    assert newest_run(tmp_path / "runs") == run
    checkpoint.set_aside(run, newer_than=run / "checkpoints" / "000000010")
    checkpoint.save(run, snapshot(20), keep=2)
    names = [path.name for path in checkpoint.list_checkpoints(run)]
    assert names == ["000000010", "000000020"]
    kept = "000000020.damaged" if name == "000000020" else name
    assert os.path.lexists(run / "checkpoints" / kept)
    assert kind != "link to a file" or (tmp_path / "precious.txt").read_text() == "precious"


def test_nothing_that_was_set_aside_is_removed(tmp_path):
    for _ in range(3):
        add_junk(tmp_path / "checkpoints" / "000000010", "folder", tmp_path)
        checkpoint.save(tmp_path, snapshot(10), keep=2)
        shutil.rmtree(tmp_path / "checkpoints" / "000000010")
    names = {path.name for path in (tmp_path / "checkpoints").iterdir()}
    assert names == {"000000010.damaged", "000000010.damaged-2", "000000010.damaged-3"}


def test_only_remains_of_checkpoints_are_removed(tmp_path):
    add_junk(tmp_path / "checkpoints" / "notes.part", "folder", tmp_path)
    checkpoint.save(tmp_path, snapshot(10), keep=2)
    assert (tmp_path / "checkpoints" / "notes.part" / "notes.txt").is_file()
