"""No command writes over its inputs, or over a file that tdpm did not write."""

import os
import shutil
import sys
import zipfile

import numpy as np
import pytest
import torch
from helpers import folder_of, zip_of
from PIL import Image

from tdpm_cli.cli import main
from tdpm_cli.runtime import grids
from tdpm_cli.runtime.console import next_command
from tdpm_cli.runtime.destinations import check_destination, check_file, is_own
from tdpm_cli.runtime.errors import InputError

OVERLAPS = {  # (output, input)
    "same file": ("data.zip", "data.zip"),
    "same folder": ("images", "images"),
    "file in the input": ("images/new.zip", "images"),
    "deep in the input": ("images/a/b/new", "images"),
    "around the input": ("images", "images/0.png"),
    "link to the input": ("link", "images"),
    "the input through a link": ("images/new.zip", "link"),
    "through a linked folder": ("link/new.zip", "images"),
    "link to a file": ("file-link", "data.zip"),
    "the input as a linked file": ("data.zip", "file-link"),
    "by another path": ("images/../data.zip", "data.zip"),
}
APART = {
    "beside": ("images-grid.png", "images"),
    "new folder": ("new/a.zip", "images"),
    "missing input": ("images", "digits"),
    "no input": ("images", None),
}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A working directory with images, a zip, links to both, and a file that tdpm did not write."""
    monkeypatch.chdir(tmp_path)
    folder_of(tmp_path / "images", [f"{k}.png" for k in range(3)], size=(12, 10))
    zip_of(tmp_path / "data.zip", ["0.png", "1.png"])
    (tmp_path / "link").symlink_to("images")
    (tmp_path / "file-link").symlink_to("data.zip")
    for suffix in ("zip", "npz", "json", "png", "safetensors", "html"):
        (tmp_path / f"precious.{suffix}").write_text("precious")
    return tmp_path


@pytest.mark.parametrize("overlap", OVERLAPS)
def test_an_output_that_overlaps_an_input_is_rejected(place, overlap):
    output, source = OVERLAPS[overlap]
    with pytest.raises(InputError, match=source):
        check_destination(place / output, [source])


@pytest.mark.parametrize("case", APART)
def test_other_outputs_are_accepted(place, case):
    output, source = APART[case]
    check_destination(place / output, [source])


def test_an_output_may_be_in_the_run_of_its_model_but_not_replace_it(place):
    check_destination(place / "images" / "samples", models=["images"])
    with pytest.raises(InputError, match="images"):
        check_destination(place / "images", models=["link"])


def snapshot(place):
    return {
        path.relative_to(place).as_posix(): (os.readlink(path) if path.is_symlink() else path.read_bytes())
        for path in place.rglob("*")
        if (path.is_symlink() or path.is_file()) and "cache" not in path.relative_to(place).parts
    }


def call(*arguments, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["tdpm", *map(str, arguments)])
    with pytest.raises(SystemExit) as stop:
        main()
    return stop.value.code


PREPARE = ("data", "prepare", "--resolution", 8, "--workers", 1)
INSPECT = ("data", "inspect", "images", "--workers", 1)
REJECTED = {
    "prepare: zip to itself": (*PREPARE, "data.zip", "data.zip"),
    "prepare: zip through a link": (*PREPARE, "file-link", "data.zip"),
    "prepare: into the folder": (*PREPARE, "images", "images/x.zip"),
    "prepare: into the linked folder": (*PREPARE, "link", "images/x.zip"),
    "prepare: over another zip": (*PREPARE, "images", "data.zip"),
    "prepare: over another file": (*PREPARE, "images", "precious.zip"),
    "encode: zip to itself": ("data", "encode", "data.zip", "data.zip", "--autoencoder", "x", "--resolution", 8),
    "encode: over another zip": ("data", "encode", "images", "precious.zip", "--autoencoder", "x", "--resolution", 8),
    "autoencoder: in the images": ("data", "autoencoder", "images/new", "--data", "images", "--resolution", 8),
    "inspect: sheet in the images": (*INSPECT, "--sheet", "images/sheet.png"),
    "inspect: another image": (*INSPECT, "--sheet", "precious.png"),
    "inspect: another JSON": (*INSPECT, "--json", "precious.json"),
    "verify: over an image": ("data", "verify", "images", "--out", "images/0.png"),
    "eval: statistics in the images": ("eval", "--ref-only", "images", "--out", "images/x.npz"),
    "eval: statistics over a file": ("eval", "--ref-only", "images", "--out", "precious.npz"),
    "eval: scores in the images": ("eval", "images", "--ref", "data.zip", "--json", "link/x.json"),
    "eval: scores over a file": ("eval", "images", "--ref", "data.zip", "--json", "precious.json"),
    "eval: report over a file": ("eval", "images", "--ref", "data.zip", "--report", "precious.html"),
    "sample: into the small images": ("sample", "images", "--upsample", "images", "--model", "data.zip"),
    "sample: over a grid": ("sample", "precious", "--model", "data.zip"),
    "train: run around the data": ("train", "--preset", "digits", "--data", "images/", "--outdir", ".",
                                   "--name", "images"),
    "train: run in the data": ("train", "--preset", "digits", "--data", "images", "--outdir", "images"),
    "train: name with a path": ("train", "--preset", "toy-mixture", "--name", "../x"),
    "train: name of the parent": ("train", "--preset", "toy-mixture", "--name", ".."),
    "train: absolute name": ("train", "--preset", "toy-mixture", "--name", "/tmp/x"),
}  # fmt: skip


@pytest.mark.parametrize("case", REJECTED)
def test_commands_reject_outputs_that_are_not_theirs(place, monkeypatch, case):
    shutil.copy(place / "precious.png", place / "precious-grid.png")
    before = snapshot(place)
    assert call(*REJECTED[case], monkeypatch=monkeypatch) == 2
    assert snapshot(place) == before


def test_overwrite_replaces_a_file_that_tdpm_did_not_write(place, monkeypatch):
    assert call(*PREPARE, "images", "precious.zip", "--overwrite", monkeypatch=monkeypatch) == 0
    assert len(zipfile.ZipFile("precious.zip").namelist()) == 4
    assert is_own(place / "precious.zip")
    assert call(*PREPARE, "link", "precious.zip", monkeypatch=monkeypatch) == 0


def test_inspect_draws_a_sheet_only_where_an_option_names_it(place, monkeypatch):
    before = snapshot(place)
    assert call(*INSPECT, monkeypatch=monkeypatch) == 0
    assert snapshot(place) == before
    for _ in range(2):  # the second time over its own files
        assert call(*INSPECT, "--sheet", "s.png", "--json", "s.json", monkeypatch=monkeypatch) == 0
    assert snapshot(place).keys() == before.keys() | {"s.png", "s.json"}


def test_the_images_of_tdpm_are_recognized(tmp_path):
    Image.new("L", (4, 4)).save(tmp_path / "other.png")
    assert is_own(grids.save(grids.image_grid(torch.zeros(4, 1, 8, 8, dtype=torch.uint8)), tmp_path / "own.png"))
    np.savez(tmp_path / "other.npz", a=np.zeros(3))
    (tmp_path / "link.png").symlink_to("own.png")
    assert not any(is_own(tmp_path / name) for name in ("other.png", "other.npz", "link.png", "missing"))


@pytest.mark.parametrize(
    "text", ["This page was written by tdpm.", "made by tdpm", '{"by": "tdpm"}', "Comment: written by tdpm!"]
)
def test_a_text_that_quotes_the_mark_is_not_tdpms(tmp_path, text):
    (tmp_path / "notes.txt").write_text(text)
    assert not is_own(tmp_path / "notes.txt")


def test_a_file_of_tdpm_is_replaced_without_an_option(tmp_path):
    own = grids.save(Image.new("L", (4, 4)), tmp_path / "own.png")
    check_file("--sheet", own)
    own.write_text("precious")
    with pytest.raises(InputError, match=r"--sheet .*own\.png"):
        check_file("--sheet", own)
    check_file("--sheet", own, overwrite=True)


@pytest.mark.parametrize(
    ("argument", "quoted"), [("a b", "'a b'"), ("$(x)", "'$(x)'"), ("it's", "'it'\"'\"'s'"), ("runs/a-1", "runs/a-1")]
)
def test_suggested_commands_are_quoted_for_a_shell(argument, quoted):
    assert next_command("tdpm sample --model", argument) == f"next: tdpm sample --model {quoted}"
