"""Data sources: small files of every format, every kind of pixel, and damaged files."""

import gzip
import importlib
import io
import json
import os
import pickle
import struct
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from helpers import encoded, folder_of, idx_of, picture, zip_of
from PIL import Image

from tdpm_cli.config import registry
from tdpm_cli.data import decode
from tdpm_cli.data.auto_preset import propose
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.data.loader import Order, batches
from tdpm_cli.data.quarantine import quarantine_path
from tdpm_cli.data.stored_images import open_stored
from tdpm_cli.data.survey import survey
from tdpm_cli.runtime.errors import InputError


def raw_of(k):
    return torch.from_numpy(np.array(picture(k))).permute(2, 0, 1)


SHAPE = (3, 10, 12)


def load(name, path, shape=SHAPE, **options):
    return registry.load("dataset", name)(path, shape, **options)


@pytest.mark.parametrize("store", [folder_of, zip_of], ids=["folder", "zip"])
def test_classes_are_folders(tmp_path, store):
    data = load("images", store(tmp_path / "data.zip", ["a/1.png", "a/2.png", "b/3.png"]))
    raw, cond = data[[2, 0]]
    assert torch.equal(raw, torch.stack([raw_of(2), raw_of(0)]))
    assert cond["label"].tolist() == [1, 0]
    assert data.class_names == ["a", "b"]


def test_hashes_of_folders_and_zips_differ(tmp_path):  # of contents, and of checksums
    folder, archive = folder_of(tmp_path / "data", ["1.png"]), zip_of(tmp_path / "data.zip", ["1.png"])
    assert load("images", folder).sha256() != load("images", archive).sha256()


def test_labels_classes_and_captions_of_dataset_json(tmp_path):
    description = {
        "labels": [["1.png", 1], ["2.png", 0]], "classes": ["cat", "dog"],
        "captions": {"1.png": "a dog", "2.png": ["a cat", "one cat"]},
    }  # fmt: skip
    data = load("images", zip_of(tmp_path / "x.zip", ["1.png", "2.png"], [("dataset.json", json.dumps(description))]))
    assert data.class_names == ["cat", "dog"]
    _, cond = data[[0, 1]]
    assert cond["label"].tolist() == [1, 0]
    assert cond["captions"] == [("a dog",), ("a cat", "one cat")]


def test_captions_beside_the_images(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png", "2.png"])
    (folder / "notes.txt").write_text("not a caption")
    data = load("images", folder)
    assert "captions" not in data[[0]][1]
    assert list(data.files.other_files) == ["notes.txt"]
    assert [note for note in data.notes if "notes.txt" in note]
    (folder / "1.txt").write_text("a red apple\nan apple\n")
    with pytest.raises(InputError, match=r"1 of 2 .*'2\.png'.*data\.uncaptioned"):
        load("images", folder)
    (folder / "2.txt").write_text("a pear")
    assert load("images", folder)[[1, 0]][1]["captions"] == [("a pear",), ("a red apple", "an apple")]
    (folder / "2.txt").write_bytes(b"\xff\xfe")
    with pytest.raises(InputError, match=r"2\.txt .*UTF-8"):
        load("images", folder)[[1]]


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("{", r"dataset\.json.*damaged"),
        ({"labels": [["1.png", 0]]}, r"dataset\.json .*1 of 2 .*'2\.png'"),
        ({"labels": [["1.png", 0], ["2.png", "cat"]]}, r"dataset\.json .*whole numbers"),
        (
            {"labels": [["1.png", 0], ["2.png", 3]], "classes": ["cat"]},
            r"dataset\.json .*classes.*\(4\)",
        ),
        ({"captions": {"1.png": "one"}}, r"1 of 2 .*'2\.png'.*data\.uncaptioned"),
    ],
)
def test_labels_that_do_not_match(tmp_path, description, message):
    text = description if isinstance(description, str) else json.dumps(description)
    with pytest.raises(InputError, match=message):
        load("images", zip_of(tmp_path / "x.zip", ["1.png", "2.png"], [("dataset.json", text)]))


def test_a_class_folder_without_images_is_named(tmp_path):
    folder = folder_of(tmp_path / "x", ["a/1.png", "b/2.png"])
    (folder / "c").mkdir()
    with pytest.raises(InputError, match=r"1 of 3 .*'c'"):
        load("images", folder)


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png"])
def test_a_zip_with_a_path_outside_is_rejected(tmp_path, name):
    with pytest.raises(InputError, match=r"x\.zip.*\b1 names"):
        load("images", zip_of(tmp_path / "x.zip", ["1.png", name]))


def test_a_truncated_zip_is_rejected(tmp_path):
    path = zip_of(tmp_path / "x.zip", ["1.png", "2.png"])
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])
    with pytest.raises(InputError, match=r"x\.zip: "):
        load("images", path)


def test_a_damaged_image_in_a_zip_leaves_the_others_readable(tmp_path):
    path = zip_of(tmp_path / "x.zip", ["1.png", "2.png"])
    damaged = bytearray(path.read_bytes())
    damaged[damaged.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(damaged)
    data = load("images", path)
    with pytest.raises(InputError, match=r"1\.png: .*CRC-32"):
        data[[0]]
    assert torch.equal(data[[1]][0][0], raw_of(1))


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "empty"),
        (b"no picture at all", "not an image"),
        (encoded(0, "png")[:200], "truncated|broken"),
        (encoded(0, "jpg", size=(64, 64))[:700], "truncated"),
    ],
)
def test_a_damaged_image_is_named(tmp_path, content, reason):
    folder = folder_of(tmp_path / "x", ["1.png", "2.png"])
    (folder / "2.png").write_bytes(content)
    data = load("images", folder)
    with pytest.raises(InputError, match=rf"2\.png: .*({reason}).*`tdpm data verify "):
        data[[0, 1]]
    assert torch.equal(data[[0]][0][0], raw_of(0))


def test_images_of_too_many_pixels_are_rejected(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "x", ["1.png"], size=(300, 300))
    monkeypatch.setattr(decode, "MAX_PIXELS", 200 * 200)
    with pytest.raises(InputError, match=r"300×300 .*40,000"):
        load("images", folder)[[0]]


@pytest.mark.parametrize("command", ["decode", "survey", "propose", "score"])
def test_only_our_limit_of_pixels_counts(tmp_path, monkeypatch, command):  # in tests, Pillow's warning is an error
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    folder = folder_of(tmp_path / "x", ["1.png"], size=(64, 64))
    if command == "decode":
        assert load("images", folder, (3, 64, 64))[[0]][0].shape == (1, 3, 64, 64)
    elif command == "survey":
        assert [info.broken for info in survey(load("images", folder), folder, decode=False, workers=1)] == [None]
    elif command == "propose":
        assert propose(folder)["space"]["shape"] == [3, 64, 64]
    else:
        assert open_stored(folder, "--ref").shape == (3, 64, 64)


def test_zip_entries_of_too_many_bytes_are_rejected(tmp_path, monkeypatch):
    monkeypatch.setattr("tdpm_cli.data.containers.MAX_FILE_BYTES", 1000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(10_000_000))
    with pytest.raises(InputError, match=r"1\.png: 10,000,000 bytes"):
        load("images", path)[[0]]


def test_small_images_are_rejected_unless_upscaled(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png"])
    with pytest.raises(InputError, match=r"12×10 .*16×16.*data\.upscale"):
        load("images", folder, (3, 16, 16))[[0]]
    assert load("images", folder, (3, 16, 16), upscale=True)[[0]][0].shape == (1, 3, 16, 16)


GREY = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
RGB = np.stack([GREY, GREY.T, 255 - GREY], -1)
HALF = Image.new("L", (8, 8), 128)
COLOUR = torch.from_numpy(RGB).permute(2, 0, 1).float()
SHADES = torch.from_numpy(GREY)[None].float()


@pytest.mark.parametrize(
    ("name", "image", "expected", "tolerance"),
    [
        ("grey.png", Image.fromarray(GREY), SHADES, 0),
        ("16-bit.png", Image.fromarray(GREY.astype(np.uint16) * 257), SHADES, 0),
        ("grey-as-rgb.png", Image.fromarray(GREY), SHADES.expand(3, 8, 8), 0),
        ("rgb.png", Image.fromarray(RGB), COLOUR, 0),
        ("rgba.png", Image.merge("RGBA", [*Image.fromarray(RGB).split(), HALF]), (COLOUR * 128 + 255 * 127) / 255, 1),
        ("grey-alpha.png", Image.merge("LA", [Image.fromarray(GREY), HALF]), (SHADES * 128 + 255 * 127) / 255, 1),
        ("palette.png", Image.fromarray(RGB).quantize(64), COLOUR, 12),
        ("cmyk.jpg", Image.fromarray(RGB).convert("CMYK"), COLOUR, 12),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_pixels_of_every_kind(tmp_path, name, image, expected, tolerance):
    image.save(tmp_path / name, **({"quality": 100} if name.endswith("jpg") else {}))
    error = pixels_of(tmp_path / name, len(expected)).float() - expected
    if tolerance > 1:  # lossy formats: of the mean
        assert error.abs().mean() < tolerance
    else:
        assert error.abs().max() <= tolerance


def test_images_of_one_bit_are_black_and_white(tmp_path):
    Image.fromarray(GREY).convert("1").save(tmp_path / "bits.png")
    assert set(pixels_of(tmp_path / "bits.png", 1).unique().tolist()) == {0, 255}


def test_floating_point_pixels_are_rejected(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"floating-point"):
        decode.prepare((tmp_path / "float.tif").read_bytes(), (1, 8, 8))


def pixels_of(path, channels):
    """An image of 8×8, as a dataset reads it."""
    files = ImageFiles(path.parent)
    return decode.to_tensor(decode.prepare(files.content(files.names.index(path.name)), (channels, 8, 8)))


@pytest.mark.parametrize("suffix", ["jpg", "png"])
def test_images_are_rotated_by_their_exif_orientation(tmp_path, suffix):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn
    picture(0, size=(16, 8)).save(tmp_path / f"1.{suffix}", exif=exif)
    content = (tmp_path / f"1.{suffix}").read_bytes()
    expected = decode.open_image(content).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(np.asarray(decode.prepare(content, (3, 16, 8))), np.asarray(expected))


def test_crops():
    image = Image.new("RGB", (40, 20))
    image.paste((255, 0, 0), (10, 0, 30, 20))  # the square in the middle
    centre = decode.fit(image, (10, 10), "centre")
    assert np.asarray(centre)[:, 2:-2, 0].min() > 250
    wide = np.asarray(decode.fit(image, (20, 10), "wide"))
    assert wide.shape == (20, 20, 3)
    assert not wide[:5].any()
    assert not wide[15:].any()
    assert wide[5:15, 7:13, 0].min() > 250
    ramp = Image.fromarray(np.tile(np.arange(64, dtype=np.uint8) * 4, (64, 1)))
    small = np.asarray(decode.fit(ramp, (8, 8), "dhariwal")).astype(float)  # 64 → 32 → 16 → 8 by averages alone
    assert np.allclose(small, np.arange(64).reshape(8, 8).mean(1) * 4, atol=1.5)
    assert decode.fit(picture(0, size=(50, 37)), (16, 12), "dhariwal").size == (16, 12)


def test_quarantined_images_are_left_out(tmp_path):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(40)])
    complete = load("images", folder)
    quarantine_path(folder).write_text("# why\n03.png\ttruncated\n")
    data = load("images", folder)
    assert len(data) == 39
    assert data.files.quarantined == 1
    assert len(data.notes) == 1
    assert torch.equal(data[[3]][0][0], raw_of(4))
    assert data.fingerprint() == complete.fingerprint()  # the data are the same, but a score of them is not
    assert data.sha256() != complete.sha256()


def test_a_quarantine_of_too_many_images_is_rejected(tmp_path):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(40)])
    quarantine_path(folder).write_text("\n".join(f"{k:02d}.png" for k in range(5)))
    with pytest.raises(InputError, match=r"5 of 40 .*5%"):
        load("images", folder)


def test_a_missing_quarantine_file_is_named(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png"])
    with pytest.raises(InputError, match=r"data\.quarantine.*none\.txt"):
        load("images", folder, quarantine=str(tmp_path / "none.txt"))


def test_decoded_images_stay_in_memory(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png", "2.png"])
    data = load("images", folder)
    assert not data.keep_in_memory(100)
    assert data.keep_in_memory(1e9)
    first = data[[1, 1, 0]][0]
    for path in folder.iterdir():
        path.unlink()
    assert torch.equal(data[[1, 1, 0]][0], first)
    assert torch.equal(first[2], raw_of(0))
    with pytest.raises(InputError, match=r"1\.png"):
        pickle.loads(pickle.dumps(data))[[0]]  # another process, which shares no memory


def test_memory_is_shared_with_workers(tmp_path):
    data = load("images", folder_of(tmp_path / "x", [f"{k}.png" for k in range(8)]))
    data.keep_in_memory(1e9)
    stream = batches(data, Order(8, 0, 0, flip=False), workers=2)
    next(stream)
    next(stream)
    stream.close()
    assert data._kept[1].all()  # the workers decoded every image, and this process sees the results


def lmdb_of(place, count=6, key=lambda k: f"{k:040x}"):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(place), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for k in range(count):
            transaction.put(key(k).encode(), encoded(k, "webp", size=(32, 24)))
    environment.close()
    return place


LSUN_SHAPE = (3, 16, 16)


def test_lsun_is_opened_by_its_folder_or_the_folder_above(tmp_path):
    place = lmdb_of(tmp_path / "bedroom_train_lmdb")
    data, again = load("lsun", tmp_path, LSUN_SHAPE), load("lsun", place, LSUN_SHAPE)  # the second uses cached keys
    assert len(data) == 6
    assert torch.equal(data[[5, 0]][0], again[[5, 0]][0])
    assert data.fingerprint() == again.fingerprint()
    assert registry.recognise(place, "images") == registry.recognise(tmp_path, "lsun") == "lsun"


@pytest.mark.parametrize("workers", [0, 2])
def test_lsun_is_read_by_workers(tmp_path, workers):
    data = load("lsun", lmdb_of(tmp_path / "x"), LSUN_SHAPE)
    data[[0]]  # opens a handle in this process, which must not cross the fork
    raw, _ = next(batches(data, Order(6, 0, 0, flip=False), workers=workers))
    assert raw.shape == (6, *LSUN_SHAPE)


def test_lsun_has_a_quarantine(tmp_path):
    place = lmdb_of(tmp_path / "x")
    quarantine_path(place).write_text(f"{3:040x}\n")
    with pytest.raises(InputError, match=r"1 of 6 .*quarantine"):
        load("lsun", place, LSUN_SHAPE)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        (None, {}, r"http://dl\.yf\.io/lsun/scenes/bedroom_train_lmdb\.zip"),
        ("", {"category": "church_outdoor", "split": "val"}, r"data\.mdb.*church_outdoor_val_lmdb"),
        ("bedroom_train_lmdb.zip", {}, r"unzip .*bedroom_train_lmdb\.zip"),
    ],
    ids=["no path", "empty folder", "zip"],
)
def test_missing_lsun_names_what_to_fetch(tmp_path, name, options, message):
    pytest.importorskip("lmdb")
    (tmp_path / "bedroom_train_lmdb.zip").touch()
    with pytest.raises(InputError, match=message):
        load("lsun", None if name is None else tmp_path / name, **options)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], r"truncated.* [\d,]+ of [\d,]+ bytes"),
        (lambda content: b"not a database" * 1000, r"LMDB"),
    ],
    ids=["truncated", "other content"],
)
def test_damaged_lsun_is_rejected(tmp_path, damage, message):
    place = lmdb_of(tmp_path / "x", 200)
    (place / "data.mdb").write_bytes(damage((place / "data.mdb").read_bytes()))
    with pytest.raises(InputError, match=message):
        load("lsun", place)


IDX_IMAGES = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
IDX_LABELS = np.array([0, 1, 2, 0, 1, 2], np.uint8)


@pytest.mark.parametrize("zipped", [True, False])
def test_idx(tmp_path, zipped):
    place = idx_of(tmp_path / "x", IDX_IMAGES, IDX_LABELS, zipped=zipped)
    data = load("idx", place, (1, 5, 4))
    raw, cond = data[[4, 0]]
    assert np.array_equal(raw[:, 0].numpy(), IDX_IMAGES[[4, 0]])
    assert cond["label"].tolist() == [1, 0]
    assert data.class_names == ["0", "1", "2"]
    assert registry.recognise(place, "images") == "idx"
    assert len(load("idx", place / f"train-images-idx3-ubyte{'.gz' if zipped else ''}", None)) == 6


def test_idx_without_labels(tmp_path):
    assert "label" not in load("idx", idx_of(tmp_path / "x", IDX_IMAGES), None)[[0]][1]


def test_idx_of_another_shape_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"\[1, 5, 4\].*space\.shape.*\[1, 28, 28\]"):
        load("idx", idx_of(tmp_path / "x", IDX_IMAGES), (1, 28, 28))


@pytest.mark.parametrize(
    ("damage", "suffix", "message"),
    [
        (lambda content: content[:-1], "", r"\b120\b.*\b119\b"),
        (lambda content: content + b"x", "", r"\b120\b.*more"),
        (lambda content: b"\x89PNG" + content, "", r"not an idx file"),
        (lambda content: bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 31, 1 << 31, 4), "", r"at most"),
        (lambda content: gzip.compress(content)[:-9], ".gz", r"idx3-ubyte\.gz.*cannot be read"),
    ],
    ids=["short", "long", "other format", "huge", "truncated gzip"],
)
def test_damaged_idx_is_rejected(tmp_path, damage, suffix, message):
    path = idx_of(tmp_path / "x", IDX_IMAGES, zipped=False) / "train-images-idx3-ubyte"
    content = damage(path.read_bytes())
    path.unlink()
    path.with_name(path.name + suffix).write_bytes(content)
    with pytest.raises(InputError, match=message):
        load("idx", tmp_path / "x", None)


def test_a_missing_split_of_idx_is_named(tmp_path):
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte"):
        load("idx", idx_of(tmp_path / "x", IDX_IMAGES), None, split="test")


def test_idx_with_too_few_labels_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"\b5 labels.*\b6\b"):
        load("idx", idx_of(tmp_path / "x", IDX_IMAGES, np.zeros(5, np.uint8)), None)


def test_fashion_mnist(tmp_path, monkeypatch):
    images, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10, dtype=np.uint8)
    idx_of(tmp_path / "x", images, labels)
    data = load("fashion-mnist", tmp_path / "x", (1, 28, 28))
    assert len(data) == 10
    assert data.class_names[9] == "ankle boot"
    root = tmp_path / "root"  # of torchvision's dataset
    (root / "FashionMNIST").mkdir(parents=True)
    idx_of(root / "FashionMNIST" / "raw", images, labels)
    assert len(load("fashion-mnist", root, None)) == 10
    with pytest.raises(InputError, match=r"--download.*dataset-fashion-mnist"):
        load("fashion-mnist", tmp_path / "empty", None)
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(InputError, match=r"--download.*Fashion-MNIST"):
        load("fashion-mnist", tmp_path / "none", None, download=True)


def test_missing_cifar10_names_what_to_fetch(tmp_path):
    with pytest.raises(InputError, match=r"--download.*https://www\.cs\.toronto\.edu.*data\.name=images"):
        load("cifar10", tmp_path, (3, 32, 32))


def test_cifar10_of_another_hash_is_rejected_unread(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Hostile(tmp_path / "executed")))
    with pytest.raises(InputError, match=r"CIFAR-10"):
        load("cifar10", tmp_path, (3, 32, 32))
    assert not (tmp_path / "executed").exists()
    pickle.loads((folder / "test_batch").read_bytes())
    assert (tmp_path / "executed").exists()  # reading them would have run their code


class Hostile:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


def test_cifar10_of_torchvision(tmp_path, monkeypatch):
    from torchvision.datasets import CIFAR10

    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch"]:
        entry = {"data": rng.integers(0, 256, (4, 3072), np.uint8), "labels": [0, 1, 2, 9]}
        (folder / name).write_bytes(pickle.dumps(entry))
    names = ["airplane", *map(str, range(8)), "truck"]
    (folder / "batches.meta").write_bytes(pickle.dumps({"label_names": names}))
    monkeypatch.setattr(CIFAR10, "_check_integrity", lambda self: True)
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda *a: True)
    data = load("cifar10", folder, (3, 32, 32))
    assert len(data) == 20
    assert data.class_names == names
    entry = pickle.loads((folder / "data_batch_1").read_bytes())
    assert np.array_equal(data[[1]][0][0].numpy(), entry["data"][1].reshape(3, 32, 32))
    assert len(load("cifar10", tmp_path, None, split="test")) == 4


def test_celeba(tmp_path):
    place = folder_of(tmp_path / "img_align_celeba", [f"{k:06d}.jpg" for k in range(4)], size=(178, 218))
    (tmp_path / "list_eval_partition.txt").write_text("000000.jpg 0\n000001.jpg 1\n000002.jpg 0\n000003.jpg 2\n")
    data = load("celeba", tmp_path, (3, 64, 64))
    assert list(data.files.names) == ["000000.jpg", "000002.jpg"]
    assert data[[1]][0].shape == (1, 3, 64, 64)
    everything = load("celeba", place, (3, 128, 128), split="all")
    face = Image.open(place / "000003.jpg").crop((25, 57, 153, 185))
    assert np.array_equal(everything[[3]][0][0].permute(1, 2, 0).numpy(), np.asarray(face))
    folder_of(place, ["000000.jpg"], size=(100, 100))
    with pytest.raises(InputError, match=r"000000\.jpg.*100×100"):
        data[[0]]
    (tmp_path / "list_eval_partition.txt").unlink()
    with pytest.raises(InputError, match=r"list_eval_partition\.txt.*data\.split=all"):
        load("celeba", tmp_path, (3, 64, 64))
    with pytest.raises(InputError, match=r"mmlab\.ie\.cuhk\.edu\.hk"):
        load("celeba", tmp_path / "none", (3, 64, 64))


def tar_of(path, keys, label=None, caption=None):
    with tarfile.open(path, "w") as archive:
        for k in keys:
            files = {"png": encoded(k)}
            files |= {"cls": str(label(k)).encode()} if label else {}
            files |= {"txt": caption(k).encode()} if caption else {}
            for suffix, content in files.items():
                entry = tarfile.TarInfo(f"{k:06d}.{suffix}")
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return path


@pytest.fixture
def shards(tmp_path):
    """A folder of four shards, each of ten images with labels and captions."""
    for shard in range(4):
        keys = range(10 * shard, 10 * shard + 10)
        tar_of(tmp_path / f"x-{shard:03d}.tar", keys, lambda k: k % 3, lambda k: f"picture {k}")
    return tmp_path


def test_webdataset_reads_the_same_from_shards_and_from_its_cache(shards):
    load("webdataset", shards, window=2)  # writes the cache
    data = load("webdataset", shards, window=2)
    raw, cond = data[[37, 2]]
    assert torch.equal(raw, torch.stack([raw_of(37), raw_of(2)]))
    assert cond["label"].tolist() == [1, 2]
    assert cond["captions"] == [("picture 37",), ("picture 2",)]


@pytest.mark.parametrize(
    "content",
    ['[{"image": ["a", 0]}]', '[{"image": ["a", "0", 1]}]', '[{"image": ["a", -1, 1]}]', '[{"image": [1, 2, 3]}]',
     '[{"txt": ["a", 0, 1]}]', "[1]", "[]", "[[]]", "{"],
)  # fmt: skip
def test_webdataset_scans_again_if_its_cache_is_damaged(shards, content):
    load("webdataset", shards, window=2)  # writes the cache
    for path in (shards / "cache" / "tdpm" / "shards").iterdir():
        path.write_text(content)
    assert torch.equal(load("webdataset", shards, window=2)[[37]][0], raw_of(37)[None])


def test_webdataset_scans_its_shards(shards):
    raw, cond = load("webdataset", shards)[[37, 2]]
    assert torch.equal(raw, torch.stack([raw_of(37), raw_of(2)]))
    assert cond["label"].tolist() == [1, 2]
    assert cond["captions"] == [("picture 37",), ("picture 2",)]
    assert registry.recognise(shards, "images") == "webdataset"


def test_webdataset_shuffles_within_a_window_of_shards(shards):
    data = load("webdataset", shards, window=2)
    order = data.epoch_order()(np.random.default_rng(0))
    assert sorted(order) == list(range(40))
    assert len({k // 10 for k in order[:20]}) == 2  # two shards at a time
    assert not np.array_equal(order, data.epoch_order()(np.random.default_rng(1)))


@pytest.mark.parametrize(("flip", "different"), [(False, 40), (True, 80)])
def test_webdataset_continues_exactly(shards, flip, different):
    data = load("webdataset", shards, window=2)
    straight = [raw for raw, _ in take(batches(data, Order(8, 0, 0, flip=flip), workers=0), 10)]
    rest = [raw for raw, _ in take(batches(data, Order(8, 0, 24, flip=flip), workers=0), 7)]
    assert torch.equal(torch.cat(straight[3:]), torch.cat(rest))
    assert torch.cat(straight).unique(dim=0).shape[0] == different  # with flips, also every mirrored image, once


def take(stream, count):
    return [next(stream) for _ in range(count)]


def overwritten(content):
    """A shard whose sixth header is damaged."""
    start = content.index(b"000005.png")
    return content[:start] + b"\x01" * 300 + content[start + 300 :]


@pytest.mark.parametrize(
    "damage",
    [lambda content: content[: len(content) // 2], overwritten, gzip.compress],
    ids=["truncated", "overwritten", "compressed"],
)
def test_a_damaged_shard_is_named(tmp_path, damage):
    path = tar_of(tmp_path / "x.tar", range(10))
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(InputError, match=r"x\.tar.*damaged"):
        load("webdataset", path)


def test_a_folder_without_shards_is_rejected(tmp_path):
    with pytest.raises(InputError, match=r"none.*\.tar"):
        load("webdataset", tmp_path / "none")


def test_a_label_that_is_no_number_is_named(tmp_path):
    path = tar_of(tmp_path / "x.tar", range(10), lambda k: "cat" if k == 4 else 1)
    with pytest.raises(InputError, match=r"\.cls.*x\.tar/000004\.png.*b'cat'"):
        load("webdataset", path)


def test_images_without_label_among_labelled_ones_are_named(tmp_path):
    tar_of(tmp_path / "x.tar", range(10))
    tar_of(tmp_path / "y.tar", range(20, 30), lambda k: 1)
    with pytest.raises(InputError, match=r"10 of 20 .*\.cls.*x\.tar/000000\.png"):
        load("webdataset", tmp_path)


@pytest.fixture
def huggingface(tmp_path):
    """Six rows, saved by `datasets` in the folder "saved" and as Parquet in "files"."""
    datasets = pytest.importorskip("datasets")
    features = datasets.Features(
        {
            "picture": datasets.Image(),
            "kind": datasets.ClassLabel(names=["cat", "dog"]),
            "text": datasets.Value("string"),
        }
    )
    rows = {
        "picture": [picture(k) for k in range(6)],
        "kind": [k % 2 for k in range(6)],
        "text": [f"no {k}" for k in range(6)],
    }
    dataset = datasets.Dataset.from_dict(rows, features=features)
    dataset.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "files").mkdir()
    dataset.to_parquet(str(tmp_path / "files" / "0.parquet"))
    return tmp_path


@pytest.mark.parametrize("place", ["saved", "files"])
def test_huggingface(huggingface, place):
    data = load("huggingface", huggingface / place, captions="text")
    raw, cond = data[[5, 0]]
    assert torch.equal(raw, torch.stack([raw_of(5), raw_of(0)]))
    assert data.class_names == ["cat", "dog"]
    assert cond["label"].tolist() == [1, 0]
    assert cond["captions"] == [("no 5",), ("no 0",)]
    assert registry.recognise(huggingface / place, "images") == "huggingface"
    raw, _ = next(batches(data, Order(6, 0, 0, flip=False), workers=2))
    assert raw.shape == (6, *SHAPE)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("saved", {"captions": "texts"}, r"'texts'.*picture, kind, text"),
        (None, {}, r"--data.*data\.hub"),
        ("none", {}, r"--data .*none"),
    ],
    ids=["unknown column", "no path", "missing"],
)
def test_huggingface_rejects(huggingface, name, options, message):
    with pytest.raises(InputError, match=message):
        load("huggingface", name and huggingface / name, **options)


def rows_of(folder, names):
    """Save rows whose images are files of these names, as Parquet without their bytes."""
    pa = pytest.importorskip("pyarrow")
    parquet = importlib.import_module("pyarrow.parquet")
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image()})
    table = pa.table({"image": [{"bytes": None, "path": name} for name in names]}, schema=features.arrow_schema)
    folder.mkdir(exist_ok=True)
    parquet.write_table(table, folder / "0.parquet")
    return folder


@pytest.mark.parametrize("name", ["1.png", "below/1.png", "link.png"])
def test_parquet_reads_images_of_its_own_folder(tmp_path, name):
    folder = rows_of(folder_of(tmp_path / "x", ["1.png", "below/1.png"]), [name])
    (folder / "link.png").symlink_to("1.png")
    assert load("huggingface", folder)[[0]][0].shape == (1, *SHAPE)


@pytest.mark.parametrize("name", ["../secret/1.png", "ABSOLUTE", "/dev/zero", "link.png", "fifo", "zero", "", "a\0b"])
def test_parquet_reads_no_file_outside_its_folder_and_no_special_file(tmp_path, name):
    secret = folder_of(tmp_path / "secret", ["1.png"]) / "1.png"
    folder = rows_of(tmp_path / "x", [str(secret) if name == "ABSOLUTE" else name])
    (folder / "link.png").symlink_to(secret)
    (folder / "zero").symlink_to("/dev/zero")
    os.mkfifo(folder / "fifo")
    with pytest.raises(InputError, match=r"row 0: "):
        load("huggingface", folder)[[0]]


@pytest.mark.parametrize(
    ("file", "key"), [("dataset_dict.json", "splits"), ("train/state.json", "_data_files")], ids=["splits", "files"]
)
@pytest.mark.parametrize("name", ["../elsewhere", "/dev/zero", "a/b", "..", 7, "fifo"])
def test_a_saved_dataset_names_only_files_of_its_folder(tmp_path, file, key, name):
    datasets = pytest.importorskip("datasets")
    saved = datasets.DatasetDict({"train": datasets.Dataset.from_dict({"text": ["a"]})})
    saved.save_to_disk(str(tmp_path / "x"))
    path = tmp_path / "x" / file
    os.mkfifo(path.parent / "fifo")
    content = json.loads(path.read_text())
    path.write_text(json.dumps(content | {key: [{"filename": name} if key == "_data_files" else name]}))
    with pytest.raises(InputError, match=r"dataset_dict\.json|state\.json|fifo"):
        load("huggingface", tmp_path / "x")


@pytest.mark.parametrize(
    ("name", "preferred", "recognised"),
    [
        *((name, preferred, "images") for name in ("x", "x.zip") for preferred in ("images", "cifar10", "lsun")),
        ("none", "lsun", "lsun"),
        ("x", "no-such-dataset", "no-such-dataset"),
        ("x.npz", "images", "npz"),
    ],
)
def test_the_dataset_that_recognises_the_files_reads_them(tmp_path, name, preferred, recognised):
    folder_of(tmp_path / "x", ["1.png"])
    zip_of(tmp_path / "x.zip", ["1.png"])
    np.savez(tmp_path / "x.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    assert registry.recognise(tmp_path / name, preferred) == recognised
