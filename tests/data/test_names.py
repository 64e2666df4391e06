"""Names of files that are not UTF-8 or contain any other character, and the quarantine list that holds them."""

import io
import os
import tarfile

import pytest
from helpers import encoded, tiny_image_preset

from tdpm_cli.config import load_config, registry
from tdpm_cli.config.presets import with_data
from tdpm_cli.data.prepare import prepare
from tdpm_cli.data.quarantine import OLD_SUFFIX, quarantine_path, read_list, read_quarantine, write_list
from tdpm_cli.data.verify import verify
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import name_bytes
from tdpm_cli.training.train import train

NAMES = [
    b"caf\xe9.png", b"\xff\xfe.png", b"#1.png", b"a\tb.png", b"a\nb.png", b"a\r\nb.png", b" a .png", b'{"name".png',
    "a\u2028b\x85.png".encode(), b"a\x1b[31m.png", b"[x].png", b"\\.png", "Grüße.png".encode(),
]  # fmt: skip


def folder_with(path, name, content):
    """A folder of 40 images, one of which has a name of these bytes and this content."""
    path.mkdir()
    for k in range(39):
        (path / f"{k:02d}.png").write_bytes(encoded(k))
    try:
        with open(os.path.join(os.fsencode(path), name), "wb") as file:
            file.write(content)
    except OSError:
        pytest.skip("the file system has no such names")
    return path


@pytest.mark.parametrize("name", NAMES)
def test_every_name_is_read_hashed_and_prepared(tmp_path, name):
    folder = folder_with(tmp_path / "x", name, encoded(39))
    verify(folder)
    data = registry.load("dataset", "images")(folder, (3, 10, 12))
    assert name in map(name_bytes, data.files.names)
    assert data.sha256()
    assert data.fingerprint()
    prepare(folder, tmp_path / "y.zip", "12x10")
    assert len(registry.load("dataset", "images")(tmp_path / "y.zip", (3, 10, 12))) == 40


@pytest.mark.parametrize("name", NAMES)
def test_every_name_can_be_quarantined(tmp_path, name):
    folder = folder_with(tmp_path / "x", name, b"damaged")
    with pytest.raises(InputError):
        verify(folder)
    assert [*map(name_bytes, read_quarantine(folder, None))] == [name]
    verify(folder)  # raises no error for quarantined images
    assert len(registry.load("dataset", "images")(folder, (3, 10, 12))) == 39


@pytest.mark.parametrize("class_folder", [b"caf\xe9", b"#a", b"a\nb"])
def test_a_run_trains_on_folders_with_every_name(tmp_path, class_folder):
    path = tmp_path / os.fsdecode(b"d\xe9")
    for k in range(8):
        for label in (class_folder, b"b"):
            folder = os.path.join(os.fsencode(path), label)
            os.makedirs(folder, exist_ok=True)
            with open(os.path.join(folder, b"%d.png" % k), "wb") as file:
                file.write(encoded(k))
    values = tiny_image_preset("space.shape=[3, 10, 12]", "backbone.attention=[5]", "train.duration=32",
                               "condition.name=labels", "condition.classes=2")  # fmt: skip
    config = load_config(with_data({**values, "data": {"name": "images"}}, path, False))
    run = train(config, tmp_path, "run")
    assert train(config, tmp_path, "run") == run  # reads the config that it wrote


def test_names_in_a_tar(tmp_path):
    with tarfile.open(tmp_path / "x.tar", "w", format=tarfile.GNU_FORMAT) as archive:
        for k, name in enumerate([b"caf\xe9.png", b"b.png"]):
            entry = tarfile.TarInfo(name.decode("utf-8", "surrogateescape"))
            entry.size = len(encoded(k))
            archive.addfile(entry, io.BytesIO(encoded(k)))
    for _ in range(2):  # the second reads the index from the cache
        data = registry.load("dataset", "webdataset")(tmp_path / "x.tar", (3, 10, 12))
        assert {*map(name_bytes, data.files.names)} == {b"x.tar/caf\xe9.png", b"x.tar/b.png"}
        assert data.sha256()
        assert data.fingerprint()


def test_a_list_of_0_2_0_is_read_and_kept(tmp_path):
    folder = folder_with(tmp_path / "x", b"y.png", encoded(39))
    old = folder.with_name(f"x{OLD_SUFFIX}")
    old.write_text("# a comment\n00.png\tcut\n")
    assert read_quarantine(folder, None) == {"00.png"}
    (folder / "01.png").write_bytes(b"")
    with pytest.raises(InputError):
        verify(folder)
    assert list(read_list(quarantine_path(folder))) == ["00.png", "01.png"]
    assert read_quarantine(folder, old) == {"00.png"}
    with pytest.raises(InputError):
        verify(folder.rename(tmp_path / "z"), old)  # rewrites the list in the present form
    assert list(read_list(old)) == ["00.png", "01.png"]


@pytest.mark.parametrize("text", ["{", '{"name": 1}', '{"name": "a", "reason": "b"}\n7.png', "\x80", '{"reason": "b"}'])
def test_a_damaged_list_is_named(tmp_path, text):
    (tmp_path / "list").write_text(text, encoding="latin-1")
    with pytest.raises(InputError, match=r"list: "):
        read_quarantine(tmp_path, tmp_path / "list")


def test_lists_hold_any_text(tmp_path):
    entries = {"\udce9\n\t# ": "why\n\tnot", "": ""}
    write_list(tmp_path / "list", entries)
    assert read_list(tmp_path / "list") == entries
