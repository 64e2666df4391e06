"""Data that hang, exhaust memory, or raise errors without text: each is named, and none of it counts as sound."""

import os
import resource
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from helpers import encoded, folder_of, zip_of
from PIL import Image

from tdpm_cli.config import registry
from tdpm_cli.data import decode
from tdpm_cli.data.containers import Folder
from tdpm_cli.data.inspect import inspect
from tdpm_cli.data.prepare import prepare
from tdpm_cli.data.quarantine import read_quarantine
from tdpm_cli.data.stored_images import open_stored
from tdpm_cli.data.survey import survey
from tdpm_cli.data.verify import verify
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import open_regular, read_regular, require_regular


def make_fifo(path):
    os.mkfifo(path)


def link_to(target):
    def make(path):
        path.symlink_to(target)

    return make


def make_socket(path):
    import socket

    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


SPECIAL = {"fifo": make_fifo, "zeros": link_to("/dev/zero"), "terminal": link_to("/dev/tty"), "folder": Path.mkdir,
           "socket": make_socket, "loop": lambda path: path.symlink_to(path)}  # fmt: skip


@pytest.mark.parametrize("kind", SPECIAL)
@pytest.mark.parametrize("read", [open_regular, read_regular, require_regular])
def test_only_regular_files_are_read(tmp_path, monkeypatch, kind, read):
    monkeypatch.chdir(tmp_path)  # a socket's path is short
    SPECIAL[kind](tmp_path / "x")
    with pytest.raises(OSError):
        read(tmp_path / "x")


@pytest.mark.parametrize("size", [0, 99, 100, 101])
def test_reads_are_bounded(tmp_path, size):
    (tmp_path / "x").write_bytes(bytes(size))
    (tmp_path / "link").symlink_to(tmp_path / "x")
    if size > 100:
        with pytest.raises(OSError, match="100"):
            read_regular(tmp_path / "link", 100)
    else:
        assert read_regular(tmp_path / "link", 100) == bytes(size)


@pytest.mark.parametrize("kind", [kind for kind in SPECIAL if kind != "folder"])
@pytest.mark.parametrize("command", ["inspect", "verify", "prepare", "train", "eval"])
def test_special_files_in_a_folder_are_named(tmp_path, monkeypatch, kind, command):
    monkeypatch.chdir(tmp_path)
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(39)])
    SPECIAL[kind](folder / "special.png")
    if command == "inspect":
        inspect(folder, tmp_path / "sheet.png", workers=1)
        return
    if command == "eval":
        with pytest.raises(InputError, match=r"special\.png"):
            open_stored(folder, "IMAGES")
        return
    run = {
        "verify": lambda: verify(folder, workers=1),
        "prepare": lambda: prepare(folder, tmp_path / "y.zip", "8"),
        "train": lambda: registry.load("dataset", "images")(folder, (3, 8, 8))[range(40)],
    }[command]
    with pytest.raises(InputError, match=r"special\.png"):
        run()
    if command == "verify":
        assert read_quarantine(folder, None) == {"special.png"}


@pytest.mark.parametrize("name", ["x", "x.zip", "x.npz", "x.tar", "x.parquet"])
@pytest.mark.parametrize("kind", ["fifo", "zeros"])
def test_data_that_are_a_special_file_are_rejected(tmp_path, name, kind):
    SPECIAL[kind](tmp_path / name)
    with pytest.raises(InputError, match=name):
        inspect(tmp_path / name, tmp_path / "sheet.png", workers=1)


@pytest.mark.parametrize("name", ["dataset.json", "1.txt", "metadata.jsonl", "metadata.csv"])
@pytest.mark.parametrize("kind", ["fifo", "zeros"])
def test_special_files_beside_images_never_hang(tmp_path, name, kind):
    folder = folder_of(tmp_path / "x", ["1.png"])
    SPECIAL[kind](folder / name)
    with pytest.raises(InputError, match=name):
        registry.load("dataset", "images")(folder, (3, 8, 8))[[0]]


@pytest.mark.parametrize("error", [MemoryError(), OSError(), ValueError(), KeyError(), RuntimeError(" \n"),
                                   SyntaxError(), IndexError("why")])  # fmt: skip
@pytest.mark.parametrize("stage", ["open", "load", "read"])
def test_an_error_without_text_is_never_sound(tmp_path, monkeypatch, error, stage):
    folder, content = folder_of(tmp_path / "x", ["1.png", "2.png"]), encoded(1)

    def fail(*args, **options):
        raise error

    if stage == "read":
        monkeypatch.setattr(Folder, "read", fail)
    else:
        target = (Image, "open") if stage == "open" else (Image.Image, "load")
        monkeypatch.setattr(*target, fail)
        if stage == "load":
            monkeypatch.setattr("PIL.ImageFile.ImageFile.load", fail)
    data = registry.load("dataset", "images")(folder, (3, 8, 8))
    for info in survey(data, folder, decode=True, workers=1):
        assert info.broken
        assert info.broken.strip()
    if stage != "read":
        with pytest.raises(ValueError, match=r"\w"):
            decode.prepare(content, (3, 8, 8))


def test_every_suffix_that_pillow_reads_is_an_image(tmp_path):
    suffixes = sorted(decode.image_suffixes())
    assert {".jfif", ".jpe", ".avif", ".jp2", ".tga", ".ico", ".pbm", ".qoi", ".apng", ".mpo"} & set(suffixes)
    assert not {".eps", ".ps", ".pdf", ".h5", ".mpg", ".wmf"} & set(suffixes)
    for number, suffix in enumerate(suffixes):
        (tmp_path / f"{number}{suffix.upper()}").write_bytes(encoded(number))
    data = registry.load("dataset", "images")(tmp_path, (3, 8, 8))
    assert len(data) == len(suffixes)
    assert len(data[range(len(suffixes))][0]) == len(suffixes)


def test_no_other_program_decodes_images(tmp_path, monkeypatch):
    picture = tmp_path / "x.eps"
    Image.new("RGB", (8, 8)).save(picture)
    monkeypatch.setattr("subprocess.check_call", lambda *args, **options: pytest.fail("started a program"))
    with pytest.raises(ValueError, match="not an image"):
        decode.open_image(picture.read_bytes())


@pytest.mark.parametrize("folder", ["@eaDir", "__MACOSX", ".DS_Store", "$RECYCLE.BIN", "lost+found", ".git", "#recycle",
                                    "a/@eaDir/1.png"])  # fmt: skip
@pytest.mark.parametrize("make", [folder_of, zip_of])
def test_folders_of_the_system_are_skipped(tmp_path, make, folder):
    names = ["a/1.png", "b/2.png", f"{folder}/thumb.png"]
    path = make(tmp_path / ("x.zip" if make is zip_of else "x"), names)
    data = registry.load("dataset", "images")(path, (3, 8, 8))
    assert data.files.names == ["a/1.png", "b/2.png"]
    assert data.class_names == ["a", "b"]
    assert not data.files.other_files


def test_skipped_files_are_counted_by_suffix(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png"])
    for name in ("a.heic", "b.HEIC", "c.mp4", "README"):
        (folder / name).touch()
    (note,) = registry.load("dataset", "images")(folder, (3, 8, 8)).notes
    assert ".heic 2" in note
    assert ".mp4 1" in note
    (folder / "1.png").unlink()
    with pytest.raises(InputError, match=r"4 files.*\.heic 2"):
        registry.load("dataset", "images")(folder, (3, 8, 8))


def test_a_zip_with_names_that_are_not_text_is_rejected(tmp_path):
    path = zip_of(tmp_path / "x.zip", ["é.png"])
    path.write_bytes(path.read_bytes().replace("é".encode(), b"\xff\xfe"))
    with pytest.raises(InputError, match=r"x\.zip"):
        registry.load("dataset", "images")(path, (3, 8, 8))


LARGE = {
    "16-bit grey": lambda side: Image.fromarray(np.zeros((side, side), np.uint16)),
    "palette": lambda side: Image.new("P", (side, side)),
    "transparent": lambda side: Image.new("RGBA", (side, side)),
    "colour": lambda side: Image.new("RGB", (side, side)),
    "two colours": lambda side: Image.new("1", (side, side)),
}
MEASURE = """
import resource, sys
from pathlib import Path
from tdpm_cli.data import decode
content = Path(sys.argv[1]).read_bytes()
decode.flatten(decode.open_image({small!r}), 3)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    decode.flatten(decode.open_image(content), 3)
except ValueError as error:
    print(error, file=sys.stderr)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


def memory_to_decode(path):
    """Return the bytes of memory that a process needs to decode an image, and the reason if it refuses."""
    process = subprocess.run([sys.executable, "-c", MEASURE.format(small=encoded(1)), path],
                             capture_output=True, text=True, check=True)  # fmt: skip
    return int(process.stdout) * (1 if sys.platform == "darwin" else 1024), process.stderr


OVERHEAD = 48 << 20  # bytes that do not depend on the size of the image


@pytest.mark.slow
@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "jp2", "jpg"])
@pytest.mark.parametrize("kind", LARGE)
def test_memory_to_decode_a_pixel_is_bounded(tmp_path, kind, suffix):
    path, side = tmp_path / f"x.{suffix}", 1024
    try:
        LARGE[kind](side).save(path)
    except (OSError, ValueError, KeyError):
        pytest.skip("the format has no such images")
    memory, reason = memory_to_decode(path)
    assert not reason
    assert memory < decode.PIXEL_BYTES * side * side + OVERHEAD


@pytest.mark.slow
@pytest.mark.parametrize("kind", LARGE)
def test_memory_to_decode_the_largest_image_is_bounded(tmp_path, kind):
    path = tmp_path / "x.png"
    LARGE[kind](int(decode.MAX_PIXELS**0.5)).save(path, compress_level=1)
    memory, reason = memory_to_decode(path)
    assert not reason
    assert memory < decode.DECODED_BYTES / 2


@pytest.mark.parametrize("mode", ["L", "I;16", "RGBA"])
def test_an_image_beyond_the_bound_is_quarantined(tmp_path, mode):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(39)])
    Image.new(mode, (11580, 11580)).save(folder / "large.png", compress_level=1)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=r"large\.png: 11580×11580"):
        verify(folder, workers=1)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000  # KiB
    assert read_quarantine(folder, None) == {"large.png"}


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "LA", "CMYK", "1", "L", "RGB"])
@pytest.mark.parametrize("channels", [1, 3])
def test_an_image_in_bands_equals_one_in_one_piece(monkeypatch, mode, channels):
    pixels = np.random.default_rng(0).integers(0, 256, (37, 23, 4), np.uint8)
    image = Image.fromarray(pixels, "RGBA")
    if mode == "I;16":
        image = Image.fromarray(pixels[..., 0].astype(np.uint16) * 257 + pixels[..., 1])
    elif mode != "RGBA":
        image = image.convert("RGB").convert(mode) if mode != "LA" else image.convert("LA")
    image.info |= {"transparency": 3} if mode == "P" else {}
    expected = decode.flatten(image, channels)
    monkeypatch.setattr(decode, "BAND_PIXELS", 23 * 5)
    assert np.array_equal(np.asarray(decode.flatten(image, channels)), np.asarray(expected))


def test_a_bad_file_in_a_zip_is_named(tmp_path):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("1.png", b"")
    with pytest.raises(BadFile, match=r"1\.png"):
        registry.load("dataset", "images")(path, (3, 8, 8))[[0]]
