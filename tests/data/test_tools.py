"""tdpm data; training on damaged, quarantined, changed or oversized data; the cost of a run."""

import json
import os
import re
import signal
import zipfile
from itertools import islice

import numpy as np
import pytest
import torch
from helpers import encoded, folder_of, idx_of, picture, zip_of
from PIL import Image

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.config import load_config, registry
from tdpm_cli.config.presets import override, read_preset, with_data
from tdpm_cli.data.auto_preset import propose
from tdpm_cli.data.inspect import inspect
from tdpm_cli.data.loader import order_from
from tdpm_cli.data.prepare import PrepareOptions, prepare
from tdpm_cli.data.quarantine import quarantine_path, read_list
from tdpm_cli.data.verify import verify
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build
from tdpm_cli.sampling.information import describe_truncation
from tdpm_cli.training.cost import cost_of, flops
from tdpm_cli.training.train import dry_run, train


@pytest.fixture
def tiny_files(tiny_images):
    """A tiny preset that reads files of 12×10 pixels."""

    def make(path, *assignments):
        plain = tiny_images("space.shape=[3, 10, 12]", "backbone.attention=[5]", *assignments)
        return load_config(with_data({**plain, "data": {"name": "images"}}, path, False))

    return make


def test_inspect_reports_sizes_modes_and_classes(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [f"{c}/{k}.png" for c in "ab" for k in range(3)])
    Image.new("RGBA", (40, 20)).save(folder / "a" / "wide.png")
    Image.new("I;16", (12, 10)).save(folder / "a" / "deep.png")
    (folder / "notes.md").touch()
    inspect(folder, tmp_path / "sheet.png", tmp_path / "x.json")
    report = json.loads((tmp_path / "x.json").read_text())
    assert report["images"] == "8"
    assert report["class_counts"] == {"a": 5, "b": 3}
    assert report["sizes"] == "2 different: 12×10 (7), 40×20 (1)"
    assert report["modes"].startswith("RGB 6")
    assert report["transparent"].startswith("1 ")
    assert report["16 bits or more"].startswith("1 ")
    assert "notes.md" in capsys.readouterr().err
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.size == (804, 104)


def test_inspect_proposes_truncation_points(tmp_path, monkeypatch):
    monkeypatch.setattr("tdpm_cli.sampling.information.cache_folder", lambda: tmp_path / "spectra")
    folder = folder_of(tmp_path / "x", [f"{k:03d}.png" for k in range(100)])
    inspect(folder, tmp_path / "sheet.png", tmp_path / "x.json", describe=describe_truncation)
    text = json.loads((tmp_path / "x.json").read_text())["truncation"]
    steps = [int(step) for step in re.findall(r"step (\d+)", text)]
    assert re.findall(r"(\d+) nats", text) == ["25", "32", "40"]
    assert steps == sorted(steps, reverse=True)


def test_equal_images_have_no_truncation_point(tmp_path, monkeypatch):
    monkeypatch.setattr("tdpm_cli.sampling.information.cache_folder", lambda: tmp_path / "spectra")
    (tmp_path / "x").mkdir()
    for k in range(3):
        Image.new("RGB", (12, 10), "red").save(tmp_path / "x" / f"{k}.png")
    assert describe_truncation(tmp_path / "x")["truncation"].startswith("unknown: ")


def test_inspect_of_a_missing_folder_names_it(tmp_path):
    with pytest.raises(InputError, match=r"none: no such"):
        inspect(tmp_path / "none")


def test_verify_quarantines_damaged_images_and_training_leaves_them_out(tmp_path, tiny_files):
    folder = folder_of(tmp_path / "x", [f"{k:03d}.png" for k in range(100)])
    verify(folder)
    assert not quarantine_path(folder).exists()
    (folder / "007.png").write_bytes(encoded(7)[:150])
    (folder / "050.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"2 of 100 .*007\.png.*tdpm train --data"):
        verify(folder, workers=2)
    assert list(read_list(quarantine_path(folder))) == ["007.png", "050.png"]
    verify(folder)  # raises no error for quarantined images
    run = train(tiny_files(folder), tmp_path, "run")
    assert json.loads((run / "data.json").read_text())["quarantined"] == 2
    for k in range(4):  # with the two before, more than 5% of the images
        (folder / f"{k:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=r"4 of 98 .*5%"):
        verify(folder)


def test_a_run_with_a_damaged_image_continues_after_its_quarantine(tmp_path, tiny_files, capsys):
    folder = folder_of(tmp_path / "x", [f"{k:03d}.png" for k in range(100)])
    config = tiny_files(folder, "train.duration=96", "train.cache=false")
    grid = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:64].tolist()
    stream = order_from(range(100), config.train.batch, config.train.seed, 0, flip=config.train.flip)
    order = [k for batch in islice(stream, 96 // config.train.batch) for k in batch]
    late = next(k for k in order[64:] if k not in grid and k not in order[:64])  # first read after a checkpoint
    (folder / f"{late:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{late:03d}\.png.*tdpm data verify"):
        train(config, tmp_path, "run")
    saved = checkpoint.list_checkpoints(tmp_path / "run")
    assert saved
    with pytest.raises(InputError, match="1 of 100"):
        verify(folder)
    train(config, tmp_path, "run")
    assert "quarantine" in capsys.readouterr().err
    assert int(checkpoint.list_checkpoints(tmp_path / "run")[-1].name) == 96


def test_a_damaged_image_in_the_first_batch_leaves_no_run(tmp_path, tiny_files):
    folder = folder_of(tmp_path / "x", [f"{k:03d}.png" for k in range(100)])
    config = tiny_files(folder, "train.duration=96", "train.cache=false", "train.batch=32")
    order = torch.randperm(100, generator=torch.Generator().manual_seed(0))[:64].tolist()  # of the first grid
    first = next(order_from(range(100), 32, config.train.seed, 0, flip=config.train.flip))
    late = next(k for k in first if k >= 64 and k not in order)
    (folder / f"{late:03d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{late:03d}\.png"):
        train(config, tmp_path, "run")
    assert not (tmp_path / "run").exists()


def test_a_run_does_not_continue_on_other_data(tmp_path, tiny_files):
    folder = folder_of(tmp_path / "x", [f"{k}.png" for k in range(20)])
    train(tiny_files(folder, "train.duration=64"), tmp_path, "run")
    (folder / "20.png").write_bytes(encoded(20))
    with pytest.raises(InputError, match=r"changed.*\b20\b.*\b21\b"):
        train(tiny_files(folder), tmp_path, "run")
    (folder / "20.png").unlink()
    moved = folder.rename(tmp_path / "y")
    assert train(tiny_files(moved), tmp_path, "run")  # the same data elsewhere


def interrupted_advance(self, count, values=None, *, advance=ProgressBar.advance):
    """Press Ctrl-C after every step of a bar of `prepare`."""
    advance(self, count, values)
    if self.label.startswith("prepare"):
        os.kill(os.getpid(), signal.SIGINT)


def test_prepare_writes_the_same_zip_after_interruptions(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tdpm_cli.data.prepare.PART_IMAGES", 8)
    folder = folder_of(tmp_path / "x", [f"{c}/{k:02d}.png" for c in "ab" for k in range(20)])
    prepare(folder, tmp_path / "a.zip", "8", PrepareOptions(workers=1))
    with monkeypatch.context() as patched:
        patched.setattr(ProgressBar, "advance", interrupted_advance)
        for _ in range(4):
            with pytest.raises(Interrupted):
                prepare(folder, tmp_path / "b.zip", "8", PrepareOptions(workers=1))
    assert len(list((tmp_path / "b.zip.parts").glob("*.zip"))) == 4
    assert not (tmp_path / "b.zip").exists()
    prepare(folder, tmp_path / "b.zip", "8", PrepareOptions(workers=2))
    assert (tmp_path / "a.zip").read_bytes() == (tmp_path / "b.zip").read_bytes()
    assert not (tmp_path / "b.zip.parts").exists()
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        labels = json.loads(archive.read("dataset.json"))["labels"]
        assert labels[0] == ["00000/img00000000.png", 0]
        assert labels[-1] == ["00004/img00000039.png", 1]
    data = registry.load("dataset", "images")(tmp_path / "a.zip", (3, 8, 8))
    assert data.class_names == ["a", "b"]
    source = registry.load("dataset", "images")(folder, (3, 8, 8))
    assert torch.equal(data[range(40)][0], source[range(40)][0])  # as training decodes them
    assert data[range(40)][1]["label"].tolist() == source[range(40)][1]["label"].tolist()


def test_prepare_keeps_captions(tmp_path):
    captions = {"captions": {f"{k}.png": [f"no {k}", "a picture"] for k in range(3)}}
    source = zip_of(tmp_path / "x.zip", [f"{k}.png" for k in range(3)], [("dataset.json", json.dumps(captions))])
    prepare(source, tmp_path / "y.zip", "6x5")
    data = registry.load("dataset", "images")(tmp_path / "y.zip", (3, 5, 6))
    assert data[[2]][1]["captions"] == [("no 2", "a picture")]


def test_prepare_reads_idx(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (5, 8, 8), np.uint8)
    prepare(idx_of(tmp_path / "idx", images, np.arange(5, dtype=np.uint8)), tmp_path / "z.zip", "8")
    data = registry.load("dataset", "images")(tmp_path / "z.zip", (1, 8, 8))
    assert np.array_equal(data[range(5)][0][:, 0].numpy(), images)
    assert data[[4]][1]["label"].tolist() == [4]


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("y.tar", ["8"], r"y\.tar.*\.zip"),
        ("y.zip", ["8x"], r"--resolution.*'8x'"),
        ("y.zip", ["0"], r"--resolution.*'0'"),
        ("y.zip", ["64"], r"5 of 5 .*12×10.*64×64.*--upscale"),
        ("y.zip", ["8", PrepareOptions(crop="center")], r"--crop.*'center'.*'centre'"),
    ],
)
def test_prepare_rejects(tmp_path, name, options, message):
    folder = folder_of(tmp_path / "x", [f"{k}.png" for k in range(5)])
    with pytest.raises(InputError, match=message):
        prepare(folder, tmp_path / name, *options)
    assert not (tmp_path / name).exists()


def test_prepare_suggests_to_enlarge_small_images_only(tmp_path, monkeypatch):
    def fail(*args):
        raise ValueError("a smaller chunk than its header states")

    monkeypatch.setattr("tdpm_cli.data.decode.prepare", fail)
    with pytest.raises(InputError, match=r"x: .*\b5 of 5\b") as rejected:
        prepare(folder_of(tmp_path / "x", [f"{k}.png" for k in range(5)]), tmp_path / "y.zip", "8", PrepareOptions())
    assert "--upscale" not in str(rejected.value)


@pytest.mark.parametrize(("small", "damaged"), [(1, 0), (20, 0), (1, 5)])
def test_small_images_are_left_out_on_request(tmp_path, capsys, small, damaged):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(40)])
    for k in range(small):
        picture(k, size=(5, 9)).save(folder / f"{k:02d}.png")
    for k in range(40 - damaged, 40):
        (folder / f"{k:02d}.png").write_bytes(b"")
    with pytest.raises(InputError, match=rf"{small + damaged} of 40 .*--skip-small") as rejected:
        prepare(folder, tmp_path / "y.zip", "8")
    assert ("tdpm data verify" in str(rejected.value)) == bool(damaged)
    if damaged:
        with pytest.raises(InputError, match=rf"{damaged} of 40 .*tdpm data verify"):
            prepare(folder, tmp_path / "y.zip", "8", PrepareOptions(skip_small=True))
        return
    prepare(folder, tmp_path / "y.zip", "8", PrepareOptions(skip_small=True))
    assert len(registry.load("dataset", "images")(tmp_path / "y.zip", (3, 8, 8))) == 40 - small
    assert f"{small} of them too small" in capsys.readouterr().err


def test_images_that_are_all_too_small_are_rejected(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png", "2.png"])
    with pytest.raises(InputError, match=r"all 2 .*--upscale"):
        prepare(folder, tmp_path / "y.zip", "64", PrepareOptions(skip_small=True))


def test_prepare_with_other_options_starts_again(tmp_path, capsys):
    folder = folder_of(tmp_path / "x", [f"{k}.png" for k in range(5)])
    with pytest.raises(InputError, match=r"--upscale"):
        prepare(folder, tmp_path / "y.zip", "64")
    prepare(folder, tmp_path / "y.zip", "64", PrepareOptions(upscale=True))
    assert "starting again" in capsys.readouterr().err
    assert len(registry.load("dataset", "images")(tmp_path / "y.zip", (3, 64, 64))) == 5


@pytest.mark.parametrize(
    ("names", "size", "shape", "condition"),
    [
        ([f"{k}.png" for k in range(4)], (40, 36), [3, 36, 40], "none"),
        ([f"{c}/{k}.png" for c in "ab" for k in range(4)], (70, 90), [3, 64, 64], "labels"),
    ],
    ids=["images", "class folders"],
)
def test_a_preset_is_proposed_for_a_folder(tmp_path, capsys, names, size, shape, condition):
    plain = propose(folder_of(tmp_path / "x", names, size=size))
    assert plain["space"]["shape"] == shape
    config = load_config(plain, ["schedule.truncate.step=100"])
    build.build(config, "meta")
    assert config.condition.name == condition
    assert load_config(plain).schedule.truncate == {"nats": 32.0}
    assert config.train.duration == 2000 * len(names)
    assert "space.shape" in capsys.readouterr().out


def test_a_preset_for_mixed_sizes_fits_most_images(tmp_path):
    folder = folder_of(tmp_path / "mixed", ["1.png"], size=(300, 140))
    picture(1, size=(500, 150)).save(folder / "2.png")
    assert propose(folder)["space"]["shape"] == [3, 128, 128]


def test_a_preset_is_proposed_for_idx(tmp_path):
    plain = propose(idx_of(tmp_path / "idx", np.zeros((4, 28, 28), np.uint8)))
    assert plain["space"]["shape"] == [1, 28, 28]
    build.build(load_config(plain, ["schedule.truncate.step=100"]), "meta")


def test_no_preset_is_proposed_for_tiny_images(tmp_path):
    folder = folder_of(tmp_path / "small", ["1.png"])
    picture(1, size=(50, 11)).save(folder / "2.png")
    with pytest.raises(InputError, match=r"\b10 pixels.*\b32"):
        propose(folder)


def test_no_preset_is_proposed_for_a_missing_folder(tmp_path):
    with pytest.raises(InputError, match=r"nowhere: no such"):
        propose(tmp_path / "nowhere")


def test_download_is_for_data_that_can_be_fetched():
    plain = read_preset("fashion-mnist")
    assert with_data(plain, None, True)["data"]["download"] is True
    with pytest.raises(InputError, match=r"--download.*'images'"):
        with_data(read_preset("ffhq-64"), None, True)


def test_the_cost_of_a_config(tiny_images):
    plain = tiny_images()
    cost, components = cost_of(load_config(plain)), build.build(load_config(plain))
    assert cost.model == sum(p.numel() for p in components.model.parameters())
    wide = cost_of(load_config(override(plain, ["backbone.channels=16"])))
    assert 2 < wide.call_flops / cost.call_flops < 4
    assert cost.step_flops > 6 * cost.call_flops  # two passes of the U-Net, forward and backward
    thrifty = cost_of(load_config(override(plain, ["train.gradient_checkpointing=true"])))
    assert thrifty.activation_bytes < 0.7 * cost.activation_bytes
    assert thrifty.step_flops > cost.step_flops
    convolution = torch.nn.Conv2d(3, 5, 3, padding=1, device="meta")
    assert flops(lambda: convolution(torch.empty(2, 3, 8, 8, device="meta"))) == 2 * 2 * 3 * 5 * 9 * 64


def test_a_dry_run_prints_the_cost_and_writes_nothing(tiny_images, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("tdpm_cli.training.rehearse.free_memory", lambda where: 1 << 20)
    dry_run(load_config(tiny_images()), tmp_path / "runs", "run")
    assert not (tmp_path / "runs").exists()
    out = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "GFLOP" in out
    assert "images a second" in out
    assert "train.gradient_checkpointing" in out


def test_out_of_memory_suggests_a_smaller_batch(tiny_images, tmp_path, monkeypatch):
    def fail(*args):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr("tdpm_cli.training.trainer.train_step", fail)
    with pytest.raises(InputError, match=r"memory.*\b16\b.*--batch-gpu 8\b"):
        train(load_config(tiny_images()), tmp_path, "run")


def test_batch_gpu_must_divide_the_batch(tiny_images):
    with pytest.raises(InputError, match=r"train\.batch_gpu.*\b5\b.*train\.batch, 16"):
        load_config(tiny_images("train.batch_gpu=5"))
