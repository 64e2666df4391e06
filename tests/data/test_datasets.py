"""Data sources: small files of every format, every kind of pixel, and everything that can be wrong with them."""

import gzip
import io
import json
import pickle
import struct
import tarfile
import zipfile

import numpy as np
import pytest
import torch
from helpers import encoded, folder_of, idx_of, picture, zip_of
from PIL import Image

from tdpm_cli.config import registry
from tdpm_cli.data import decode
from tdpm_cli.data.image_files import ImageFiles
from tdpm_cli.data.loader import batches
from tdpm_cli.data.quarantine import quarantine_path
from tdpm_cli.runtime.errors import InputError


def raw_of(k):
    return torch.from_numpy(np.array(picture(k))).permute(2, 0, 1)


SHAPE = (3, 10, 12)


def load(name, path, shape=SHAPE, **options):
    return registry.load("dataset", name)(path, shape, **options)


def test_folders_and_zips_give_the_same_images_and_classes(tmp_path):
    names = ["a/1.png", "a/2.png", "b/3.png"]
    folder, archive = folder_of(tmp_path / "data", names), zip_of(tmp_path / "data.zip", names)
    for data in (load("images", folder), load("images", archive)):
        raw, cond = data[[2, 0]]
        assert torch.equal(raw, torch.stack([raw_of(2), raw_of(0)]))
        assert cond["label"].tolist() == [1, 0]
        assert data.class_names == ["a", "b"]
    assert load("images", folder).sha256() != load("images", archive).sha256()  # one of contents, one of checksums


def test_labels_classes_and_captions_of_dataset_json(tmp_path):
    says = {
        "labels": [["1.png", 1], ["2.png", 0]], "classes": ["cat", "dog"],
        "captions": {"1.png": "a dog", "2.png": ["a cat", "one cat"]},
    }  # fmt: skip
    data = load("images", zip_of(tmp_path / "x.zip", ["1.png", "2.png"], [("dataset.json", json.dumps(says))]))
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
    ("says", "message"),
    [
        ("{", r"dataset\.json is damaged"),
        ({"labels": [["1.png", 0]]}, r"dataset\.json .*1 of 2 .*'2\.png'"),
        ({"labels": [["1.png", 0], ["2.png", "cat"]]}, r"dataset\.json .*whole numbers"),
        (
            {"labels": [["1.png", 0], ["2.png", 3]], "classes": ["cat"]},
            r"dataset\.json .*classes.*\(4\)",
        ),
        ({"captions": {"1.png": "one"}}, r"1 of 2 .*'2\.png'.*data\.uncaptioned"),
    ],
)
def test_labels_that_do_not_match(tmp_path, says, message):
    text = says if isinstance(says, str) else json.dumps(says)
    with pytest.raises(InputError, match=message):
        load("images", zip_of(tmp_path / "x.zip", ["1.png", "2.png"], [("dataset.json", text)]))


def test_a_class_folder_without_images_is_named(tmp_path):
    folder = folder_of(tmp_path / "x", ["a/1.png", "b/2.png"])
    (folder / "c").mkdir()
    with pytest.raises(InputError, match=r"1 of 3 .*'c'"):
        load("images", folder)


def test_a_zip_that_leads_out_of_itself_is_refused(tmp_path):
    for name in ("../1.png", "/etc/1.png", "a/../../1.png", "..\\1.png"):
        with pytest.raises(InputError, match=r"1 names .* out of it"):
            load("images", zip_of(tmp_path / "x.zip", ["1.png", name]))


def test_a_zip_that_is_cut_short_or_damaged(tmp_path):
    path = zip_of(tmp_path / "x.zip", ["1.png", "2.png"])
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.zip: "):
        load("images", path)
    damaged = bytearray(whole)
    damaged[whole.index(b"IDAT") + 8] ^= 0xFF
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"1\.png: cannot be read \(Bad CRC-32"):
        load("images", path)[[0]]
    assert len(load("images", path)[[1]][0]) == 1


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


def test_bombs_are_refused_before_they_unfold(tmp_path, monkeypatch):
    folder = folder_of(tmp_path / "x", ["1.png"], size=(300, 300))
    monkeypatch.setattr(decode, "MAX_PIXELS", 200 * 200)
    with pytest.raises(InputError, match=r"300×300 pixels; at most 40,000 are accepted"):
        load("images", folder)[[0]]
    monkeypatch.setattr("tdpm_cli.data.containers.MAX_FILE_BYTES", 1000)
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("1.png", bytes(10_000_000))
    with pytest.raises(InputError, match=r"1\.png: 10,000,000 bytes unpacked"):
        load("images", path)[[0]]


def test_small_images_are_refused_unless_upscaled(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png"])
    with pytest.raises(InputError, match=r"12×10 pixels, smaller than 16×16.*data\.upscale=true"):
        load("images", folder, (3, 16, 16))[[0]]
    assert load("images", folder, (3, 16, 16), upscale=True)[[0]][0].shape == (1, 3, 16, 16)


def test_pixels_of_every_kind(tmp_path):
    grey = np.linspace(0, 255, 64).round().astype(np.uint8).reshape(8, 8)
    rgb = np.stack([grey, grey.T, 255 - grey], -1)
    half = np.full((8, 8), 128, np.uint8)
    images = {
        "grey.png": Image.fromarray(grey),
        "deep.png": Image.fromarray(grey.astype(np.uint16) * 257),
        "rgb.png": Image.fromarray(rgb),
        "alpha.png": Image.merge("RGBA", [*Image.fromarray(rgb).split(), Image.fromarray(half)]),
        "greyalpha.png": Image.merge("LA", [Image.fromarray(grey), Image.fromarray(half)]),
        "palette.png": Image.fromarray(rgb).quantize(64),
        "bits.png": Image.fromarray(grey).convert("1"),
        "cmyk.jpg": Image.fromarray(rgb).convert("CMYK"),
    }  # fmt: skip
    for name, image in images.items():
        image.save(tmp_path / name, **({"quality": 100} if name.endswith("jpg") else {}))
    files = ImageFiles(tmp_path)
    read = lambda name, channels: decode.to_tensor(
        decode.prepare(files.content(files.names.index(name)), (channels, 8, 8))
    )
    assert torch.equal(read("grey.png", 1)[0], torch.from_numpy(grey))
    assert torch.equal(read("deep.png", 1)[0], torch.from_numpy(grey))  # 16 bits to 8
    assert torch.equal(read("grey.png", 3), torch.from_numpy(grey).expand(3, 8, 8))
    assert torch.equal(read("rgb.png", 3), torch.from_numpy(rgb).permute(2, 0, 1))
    on_white = torch.from_numpy(rgb).permute(2, 0, 1) * (128 / 255) + 255 * (127 / 255)
    assert (read("alpha.png", 3) - on_white).abs().max() <= 1
    assert (read("greyalpha.png", 1)[0] - (torch.from_numpy(grey) * (128 / 255) + 127)).abs().max() <= 1
    assert (read("palette.png", 3).float() - torch.from_numpy(rgb).permute(2, 0, 1).float()).abs().mean() < 12
    assert set(read("bits.png", 1).unique().tolist()) == {0, 255}
    assert (read("cmyk.jpg", 3).float() - torch.from_numpy(rgb).permute(2, 0, 1).float()).abs().mean() < 12
    Image.fromarray(grey.astype(np.float32)).save(tmp_path / "float.tif")
    with pytest.raises(ValueError, match=r"floating-point pixels"):
        decode.prepare((tmp_path / "float.tif").read_bytes(), (1, 8, 8))


def test_images_are_turned_upright(tmp_path):
    turned = Image.Exif()
    turned[0x0112] = 6  # a quarter turn
    for suffix in ("jpg", "png"):
        picture(0, size=(16, 8)).save(tmp_path / f"1.{suffix}", exif=turned)
        image = decode.prepare((tmp_path / f"1.{suffix}").read_bytes(), (3, 16, 8))
        expected = decode.open_image((tmp_path / f"1.{suffix}").read_bytes()).transpose(Image.Transpose.ROTATE_270)
        assert np.array_equal(np.asarray(image), np.asarray(expected))


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


def test_quarantine_keeps_images_out(tmp_path):
    folder = folder_of(tmp_path / "x", [f"{k:02d}.png" for k in range(40)])
    whole = load("images", folder)
    quarantine_path(folder).write_text("# why\n03.png\ttruncated\n")
    data = load("images", folder)
    assert len(data) == 39
    assert data.files.quarantined == 1
    assert len(data.notes) == 1
    assert torch.equal(data[[3]][0][0], raw_of(4))
    assert data.fingerprint() == whole.fingerprint()  # the data are the same, but a score of them is not
    assert data.sha256() != whole.sha256()
    quarantine_path(folder).write_text("\n".join(f"{k:02d}.png" for k in range(5)))
    with pytest.raises(InputError, match=r"5 of 40 images are in quarantine \(accepted: 5%\)"):
        load("images", folder)
    with pytest.raises(InputError, match=r"data\.quarantine is .*none\.txt: no such file"):
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
    with pytest.raises(InputError, match="cannot be read"):
        pickle.loads(pickle.dumps(data))[[0]]  # another process, that shares nothing


def test_memory_is_shared_with_workers(tmp_path):
    data = load("images", folder_of(tmp_path / "x", [f"{k}.png" for k in range(8)]))
    data.keep_in_memory(1e9)
    stream = batches(data, 8, 0, 0, flip=False, workers=2)
    next(stream)
    next(stream)
    stream.close()
    assert data._kept[1].all()  # the workers decoded all, and this process sees it


def lmdb_of(place, count=6, key=lambda k: f"{k:040x}"):
    lmdb = pytest.importorskip("lmdb")
    environment = lmdb.open(str(place), map_size=1 << 24)
    with environment.begin(write=True) as transaction:
        for k in range(count):
            transaction.put(key(k).encode(), encoded(k, "webp", size=(32, 24)))
    environment.close()
    return place


def test_lsun(tmp_path):
    place = lmdb_of(tmp_path / "bedroom_train_lmdb")
    shape = (3, 16, 16)
    data = load("lsun", tmp_path, shape)  # the folder that holds it
    assert len(data) == 6
    again = load("lsun", place, shape)  # itself; keys from the cache
    assert torch.equal(data[[5, 0]][0], again[[5, 0]][0])
    assert data.fingerprint() == again.fingerprint()
    for workers in (0, 2):  # a handle that this process has open must not cross the fork
        raw, _ = next(batches(data, 6, 0, 0, flip=False, workers=workers))
        assert raw.shape == (6, *shape)
    assert registry.recognise(place, "images") == registry.recognise(tmp_path, "lsun") == "lsun"
    quarantine_path(place).write_text(f"{3:040x}\n")
    with pytest.raises(InputError, match=r"1 of 6 images are in quarantine"):
        load("lsun", place, shape)


def test_lsun_says_what_is_missing_or_damaged(tmp_path):
    pytest.importorskip("lmdb")
    with pytest.raises(InputError, match=r"curl -LO http://dl\.yf\.io/lsun/scenes/bedroom_train_lmdb\.zip && unzip"):
        load("lsun", None)
    with pytest.raises(InputError, match=r"data\.mdb .*church_outdoor_val_lmdb"):
        load("lsun", tmp_path, category="church_outdoor", split="val")
    (tmp_path / "bedroom_train_lmdb.zip").touch()
    with pytest.raises(InputError, match=r"unzip .*bedroom_train_lmdb\.zip"):
        load("lsun", tmp_path / "bedroom_train_lmdb.zip")
    place = lmdb_of(tmp_path / "x", 200)
    whole = (place / "data.mdb").read_bytes()
    (place / "data.mdb").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"truncated: [\d,]+ of [\d,]+ bytes"):
        load("lsun", place)
    (place / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(InputError, match=r"the LMDB cannot be read"):
        load("lsun", place)


def test_idx(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (6, 5, 4), np.uint8)
    labels = np.array([0, 1, 2, 0, 1, 2], np.uint8)
    for zipped in (True, False):
        place = idx_of(tmp_path / f"x{zipped}", images, labels, zipped=zipped)
        data = load("idx", place, (1, 5, 4))
        raw, cond = data[[4, 0]]
        assert np.array_equal(raw[:, 0].numpy(), images[[4, 0]])
        assert cond["label"].tolist() == [1, 0]
        assert data.class_names == ["0", "1", "2"]
        assert registry.recognise(place, "images") == "idx"
    assert len(load("idx", place / "train-images-idx3-ubyte", None)) == 6
    assert "label" not in load("idx", idx_of(tmp_path / "bare", images), None)[[0]][1]
    with pytest.raises(InputError, match=r"\[1, 5, 4\].* space\.shape is \[1, 28, 28\]"):
        load("idx", place, (1, 28, 28))


def test_damaged_idx(tmp_path):
    images = np.zeros((6, 5, 4), np.uint8)
    place = idx_of(tmp_path / "x", images, zipped=False)
    path = place / "train-images-idx3-ubyte"
    whole = path.read_bytes()
    for content, message in (
        (whole[:-1], r"120 bytes.* 119"),
        (whole + b"x", r"120 bytes.* more"),
        (b"\x89PNG" + whole, r"not an idx file"),
        (bytes([0, 0, 8, 3]) + struct.pack(">3I", 1 << 31, 1 << 31, 4), r"at most .* are accepted"),
    ):
        path.write_bytes(content)
        with pytest.raises(InputError, match=message):
            load("idx", place, None)
    path.unlink()
    (place / "train-images-idx3-ubyte.gz").write_bytes(gzip.compress(whole)[:-9])
    with pytest.raises(InputError, match=r"cannot be read"):
        load("idx", place, None)
    with pytest.raises(InputError, match=r"t10k-images-idx3-ubyte"):
        load("idx", place, None, split="test")
    idx_of(tmp_path / "y", images, np.zeros(5, np.uint8))
    with pytest.raises(InputError, match=r"5 labels for 6 examples"):
        load("idx", tmp_path / "y", None)


def test_fashion_mnist(tmp_path, monkeypatch):
    images, labels = np.zeros((10, 28, 28), np.uint8), np.arange(10, dtype=np.uint8)
    idx_of(tmp_path / "x", images, labels)
    data = load("fashion-mnist", tmp_path / "x", (1, 28, 28))
    assert len(data) == 10
    assert data.class_names[9] == "ankle boot"
    root = tmp_path / "root"  # of torchvision's data set
    (root / "FashionMNIST").mkdir(parents=True)
    idx_of(root / "FashionMNIST" / "raw", images, labels)
    assert len(load("fashion-mnist", root, None)) == 10
    with pytest.raises(InputError, match=r"--download .*apt install dataset-fashion-mnist"):
        load("fashion-mnist", tmp_path / "empty", None)
    monkeypatch.setattr("torchvision.datasets.FashionMNIST.mirrors", ["http://127.0.0.1:1/"])
    with pytest.raises(InputError, match=r"--download: Fashion-MNIST"):
        load("fashion-mnist", tmp_path / "none", None, download=True)


def test_cifar10_is_read_only_if_it_is_the_published_one(tmp_path, monkeypatch):
    told = r"--download .*curl -LO https://www\.cs\.toronto\.edu.*data\.name=images"
    with pytest.raises(InputError, match=told):
        load("cifar10", tmp_path, (3, 32, 32))
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in [*(f"data_batch_{k}" for k in range(1, 6)), "test_batch", "batches.meta"]:
        (folder / name).write_bytes(pickle.dumps(Hostile()))
    with pytest.raises(InputError, match=r"cifar-10|CIFAR-10"):
        load("cifar10", tmp_path, (3, 32, 32))
    assert not (tmp_path / "executed").exists()


class Hostile:
    """Runs when it is unpickled."""

    def __reduce__(self):
        return exec, ("raise AssertionError('unpickled')",)


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
    whole = load("celeba", place, (3, 128, 128), split="all")
    face = Image.open(place / "000003.jpg").crop((25, 57, 153, 185))
    assert np.array_equal(whole[[3]][0][0].permute(1, 2, 0).numpy(), np.asarray(face))
    folder_of(place, ["000000.jpg"], size=(100, 100))
    with pytest.raises(InputError, match=r"000000\.jpg: 100×100 .*box"):
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


def test_webdataset(tmp_path):
    for shard in range(4):
        keys = range(10 * shard, 10 * shard + 10)
        tar_of(tmp_path / f"x-{shard:03d}.tar", keys, lambda k: k % 3, lambda k: f"picture {k}")
    for _ in range(2):  # scanned, and from the cache
        data = load("webdataset", tmp_path, window=2)
        raw, cond = data[[37, 2]]
        assert torch.equal(raw, torch.stack([raw_of(37), raw_of(2)]))
        assert cond["label"].tolist() == [1, 2]
        assert cond["captions"] == [("picture 37",), ("picture 2",)]
    assert registry.recognise(tmp_path, "images") == "webdataset"
    order = data.epoch_order()(np.random.default_rng(0))
    assert sorted(order) == list(range(40))
    assert len({k // 10 for k in order[:20]}) == 2  # two shards at a time
    assert not np.array_equal(order, data.epoch_order()(np.random.default_rng(1)))
    for flip in (False, True):
        whole = [raw for raw, _ in take(batches(data, 8, 0, 0, flip=flip, workers=0), 10)]
        rest = [raw for raw, _ in take(batches(data, 8, 0, 24, flip=flip, workers=0), 7)]
        assert torch.equal(torch.cat(whole[3:]), torch.cat(rest))  # it continues exactly
    assert torch.cat(whole).unique(dim=0).shape[0] == 80  # each and its mirror image, once


def take(stream, count):
    return [next(stream) for _ in range(count)]


def test_damaged_shards(tmp_path):
    path = tar_of(tmp_path / "x.tar", range(10))
    whole = path.read_bytes()
    path.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"x\.tar: the shard is damaged"):
        load("webdataset", path)
    damaged = bytearray(whole)
    damaged[whole.index(b"000005.png") : whole.index(b"000005.png") + 300] = b"\x01" * 300
    path.write_bytes(damaged)
    with pytest.raises(InputError, match=r"x\.tar: the shard is damaged"):
        load("webdataset", path)
    path.write_bytes(gzip.compress(whole))
    with pytest.raises(InputError, match=r"x\.tar: the shard is damaged"):
        load("webdataset", path)
    with pytest.raises(InputError, match=r"\.tar"):
        load("webdataset", tmp_path / "none")
    tar_of(path, range(10), lambda k: "cat" if k == 4 else 1)
    with pytest.raises(InputError, match=r"the label \(\.cls\) of x\.tar/000004\.png is b'cat'"):
        load("webdataset", path)
    tar_of(tmp_path / "y.tar", range(20, 30), lambda k: 1)
    tar_of(path, range(10))
    with pytest.raises(InputError, match=r"10 of 20 .*\(\.cls\).* x\.tar/000000\.png"):
        load("webdataset", tmp_path)


def test_huggingface(tmp_path):
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
    made = datasets.Dataset.from_dict(rows, features=features)
    made.save_to_disk(str(tmp_path / "saved"))
    (tmp_path / "files").mkdir()
    made.to_parquet(str(tmp_path / "files" / "0.parquet"))
    for place in ("saved", "files"):
        data = load("huggingface", tmp_path / place, captions="text")
        raw, cond = data[[5, 0]]
        assert torch.equal(raw, torch.stack([raw_of(5), raw_of(0)]))
        assert data.class_names == ["cat", "dog"]
        assert cond["label"].tolist() == [1, 0]
        assert cond["captions"] == [("no 5",), ("no 0",)]
        assert registry.recognise(tmp_path / place, "images") == "huggingface"
    raw, _ = next(batches(data, 6, 0, 0, flip=False, workers=2))
    assert raw.shape == (6, *SHAPE)
    with pytest.raises(InputError, match=r"no column 'texts'; it has: picture, kind, text"):
        load("huggingface", tmp_path / "saved", captions="texts")
    with pytest.raises(InputError, match=r"--data PATH or data\.hub=OWNER/NAME"):
        load("huggingface", None)
    with pytest.raises(InputError, match=r"--data .*none"):
        load("huggingface", tmp_path / "none")


def test_the_part_that_knows_the_data_reads_them(tmp_path):
    folder = folder_of(tmp_path / "x", ["1.png"])
    archive = zip_of(tmp_path / "x.zip", ["1.png"])
    for preferred in ("images", "cifar10", "lsun"):
        assert registry.recognise(folder, preferred) == "images"
        assert registry.recognise(archive, preferred) == "images"
    assert registry.recognise(tmp_path / "none", "lsun") == "lsun"
    assert registry.recognise(folder, "no-such-part") == "no-such-part"
    np.savez(tmp_path / "x.npz", arr_0=np.zeros((2, 4, 4, 3), np.uint8))
    assert registry.recognise(tmp_path / "x.npz", "images") == "npz"
