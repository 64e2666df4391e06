"""tdpm eval and tdpm sweep: inputs, results and rejected options."""

import csv
import hashlib
import json
import re
import struct
import subprocess
import sys
import zipfile
import zlib

import numpy as np
import pytest
import torch
from helpers import (
    rewrite_with_keys_of_0_1_0,
    run_sweep,
    sample,
    score,
    tiny_image_preset,
    with_keys_of_0_1_0,
)
from PIL import Image
from torchvision.transforms.functional import gaussian_blur

from tdpm_cli.config import load_config
from tdpm_cli.data.datasets.digits import digits as open_digits
from tdpm_cli.data.decode import from_tensor
from tdpm_cli.evaluation import diagnose, metric, summary
from tdpm_cli.evaluation.checks import check_captions
from tdpm_cli.evaluation.evaluate import write_statistics
from tdpm_cli.evaluation.examples import Examples
from tdpm_cli.evaluation.extractors import load_extractor
from tdpm_cli.evaluation.inputs import open_input, samples_of
from tdpm_cli.evaluation.options import StatisticsOptions
from tdpm_cli.evaluation.scorer import Scorer
from tdpm_cli.evaluation.sweep_report import is_best, read_sweep, table_rows
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.sample_batch import GeneratedDataset
from tdpm_cli.sampling.settings import settings_of
from tdpm_cli.training.train import train


def write_images(folder, images, names=None):
    """uint8 [N, C, H, W] as PNG files."""
    for k, image in enumerate(images):
        path = folder / (names[k] if names else f"{k:03d}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        from_tensor(image).save(path)
    return folder


def noise(n, channels=3, side=8, seed=0):
    return torch.randint(256, (n, channels, side, side), generator=torch.Generator().manual_seed(seed)).byte()


def distance(result):
    return next(iter(result["scores"].values()))


def test_points_are_scored_by_their_sliced_wasserstein_distance(runs, tmp_path):
    sample(tmp_path / "out", 500, runs["points"])
    result = score(tmp_path / "out", json_file=tmp_path / "scores" / "out.json")
    assert list(result["scores"]) == ["sliced W2"]
    assert result["protocol"]["n"] == 500
    assert json.loads((tmp_path / "scores" / "out.json").read_text()) == result
    with pytest.raises(InputError, match=r"fid.*points"):
        score(tmp_path / "out", metrics=["fid"])


def test_extra_metrics_follow_the_distance(runs, tmp_path):
    sample(tmp_path / "out", 100, runs["points"])
    result = score(tmp_path / "out", metrics=["kid", "prdc", "memorised"])
    assert list(result["scores"]) == [
        "sliced W2", "KD", "precision (k = 3)", "recall (k = 3)", "precision (k = 5)", "recall (k = 5)",
        "density (k = 5)", "coverage (k = 5)", "memorised",
    ]  # fmt: skip
    assert list(result["standard_errors"]) == ["KD"]
    assert all(0 <= result["scores"][name] <= 1 for name in ("recall (k = 3)", "coverage (k = 5)", "memorised"))
    sample(tmp_path / "few", 5, runs["points"])
    with pytest.raises(InputError, match=r"prdc.*\b5\b"):
        score(tmp_path / "few", metrics=["prdc"])


def test_the_scores_of_the_data_against_themselves_are_zero(runs, tmp_path):
    pytest.importorskip("efficientnet_lite_pytorch")
    data, _ = build.open_dataset(build.load_model(runs["images"]).components.config)
    for k, image in enumerate(data[range(40)][0]):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.fromarray(image[0].numpy()).save(tmp_path / "a" / f"{k}.png")
    same = score(tmp_path / "a", features="efficientnet-lite0", ref=tmp_path / "a")
    assert same["scores"]["FD-efficientnet-lite0-40"] == pytest.approx(0, abs=0.05)
    sample(tmp_path / "b", 40, runs["images"])
    noise = score(tmp_path / "b", metrics=["fid"], ref=tmp_path / "a", n=20)  # the features of the preset
    assert noise["scores"]["FD-efficientnet-lite0-20"] > 100


@pytest.fixture(scope="module")
def images_of_model(runs, tmp_path_factory):
    """A folder of two images that a model drew."""
    folder = tmp_path_factory.mktemp("drawn") / "out"
    sample(folder, 2, runs["images"])
    return folder


@pytest.fixture
def broken_image(tmp_path):
    """A file of text in a folder of its own, with the name of an image."""
    path = tmp_path / "bad" / "x.png"
    path.parent.mkdir()
    path.write_text("no picture")
    return path


@pytest.mark.parametrize(
    ("images", "options", "message"),
    [
        ("OUT", {"n": 1}, r"1 examples.*\b2\b"),
        ("RUN", {}, r"--model"),
        ("", {}, r"IMAGES is empty"),
        ("TMP/nowhere", {}, r"IMAGES .*nowhere"),
        ("OUT", {"ref": "cifar10"}, r"--ref cifar10.*--ref PATH"),
        ("OUT", {"ref": "toy-mixture"}, r"images.*points"),
        ("OUT", {"json_file": "TMP"}, r"folder"),
        ("OUT", {"features": "inceptoin"}, r"--features.*'inceptoin'.*'inception'"),
        ("OUT", {"weights": "BROKEN"}, r"x\.png.*EfficientNet-Lite0"),
        ("OUT", {"features": "inception", "weights": "BROKEN"}, r"x\.png.*TorchScript"),
        ("OUT", {"features": "inception", "weights": "TMP/none.pt"}, r"--weights .*none\.pt"),
    ],
    ids=["one image", "run", "empty name", "missing", "missing reference", "points as reference", "folder as file",
         "unknown features", "broken weights", "broken TorchScript", "missing weights"],
)  # fmt: skip
def test_eval_rejects(runs, images_of_model, broken_image, tmp_path, images, options, message):
    places = {"OUT": images_of_model, "RUN": runs["images"], "TMP": tmp_path, "BROKEN": broken_image}
    resolve = lambda value: (
        places.get(value, tmp_path / value[4:] if value.startswith("TMP/") else value)
        if isinstance(value, str)
        else value
    )
    with pytest.raises(InputError, match=message):
        score(resolve(images), **{name: resolve(value) for name, value in options.items()})


def test_a_folder_without_manifest_needs_a_reference(tmp_path):
    with pytest.raises(InputError, match=r"samples\.json.*--ref PATH"):
        score(write_images(tmp_path / "images", noise(3)))


def test_a_folder_without_images_is_rejected(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"empty.*no images"):
        score(tmp_path / "empty", ref=tmp_path / "empty")


def test_a_folder_of_undecodable_files_is_rejected(broken_image):
    with pytest.raises(InputError, match=r"1 of 1 .*x\.png"):
        score(broken_image.parent, ref=broken_image.parent)


def test_a_failed_download_names_the_address_and_the_place(images_of_model, tmp_path, monkeypatch):
    monkeypatch.setattr("cleanfid.downloads_helper.inception_url", "file:///nowhere/inception-2015-12-05.pt")
    with pytest.raises(InputError, match=r"file:///nowhere.*cache/tdpm/inception-2015-12-05\.pt"):
        score(images_of_model, features="inception")
    assert not list((tmp_path / "cache").rglob("*inception*"))


@pytest.fixture(scope="module")
def run_without_data(tmp_path_factory):
    """A run whose training data were moved, its samples, the old folder of the data, and the new one."""
    folder = tmp_path_factory.mktemp("moved")
    data = write_images(folder / "data", noise(20, 1))
    plain = tiny_image_preset("data.name=images", f"data.path={data}", "train.duration=16")
    run = train(load_config(plain), folder, "run")
    sample(folder / "out", 4, run)
    moved = data.rename(folder / "elsewhere")
    return run, folder / "out", data, moved


@pytest.mark.parametrize(
    ("work", "option"),
    [
        (lambda run, out, moved, ours: score(out, features=ours["features"]), "--ref"),
        (lambda run, out, moved, ours: score(model=run, **ours), "--ref"),
        (lambda run, out, moved, ours: score(model=run, ref=moved, diagnose=True, **ours), "--diagnose"),
        (lambda run, out, moved, ours: run_sweep([1], [run], **ours), "--ref"),
        (lambda run, out, moved, ours: run_sweep([1], [run], starts=["data"], ref=moved, **ours), "--start data"),
    ],
    ids=["folder", "model", "diagnose", "sweep", "sweep from data"],
)
def test_missing_training_data_are_named(run_without_data, pooled, work, option):
    run, out, data, moved = run_without_data
    with pytest.raises(InputError, match=rf"{data}\b.*{option}"):
        work(run, out, moved, {"features": pooled, "n": 4})


def test_a_sweep_with_another_reference_needs_no_training_data(run_without_data, pooled):
    run, _, _, moved = run_without_data
    assert len(run_sweep([1], [run], features=pooled, n=4, ref=moved)) == 1


def test_eval_suggests_a_sweep_of_the_model_of_the_samples(runs, tmp_path, capsys):
    sample(tmp_path / "out", 10, runs["points"])
    score(tmp_path / "out")
    assert f"tdpm sweep --model {runs['points']} --steps" in capsys.readouterr().err


def test_eval_suggests_a_sweep_of_the_model_that_it_scored(runs, capsys):
    score(model=runs["points"], n=10)
    assert f"tdpm sweep --model {runs['points']} --steps" in capsys.readouterr().err


def test_eval_of_data_suggests_a_sweep_without_model(runs, tmp_path, capsys):
    sample(tmp_path / "out", 10, runs["points"])
    score("toy-mixture", ref=tmp_path / "out", n=10)
    assert "tdpm sweep --steps" in capsys.readouterr().err


def test_only_the_published_inception_gives_a_score_named_fid(runs, tmp_path, stand_in, monkeypatch):
    monkeypatch.setattr("tdpm_cli.evaluation.metrics.fid.frechet", lambda *_: 1.0)  # names need no number
    sample(tmp_path / "out", 10, runs["images"])
    digest = hashlib.sha256(stand_in.read_bytes()).hexdigest()
    ours = {"features": "inception", "weights": stand_in, "metrics": ["fid"], "ref": tmp_path / "out"}
    assert list(score(tmp_path / "out", **ours)["scores"]) == [f"FD-inception-{digest[:8]}-10"]
    monkeypatch.setattr("tdpm_cli.evaluation.features.inception.SHA256", digest)
    assert list(score(tmp_path / "out", **ours)["scores"]) == ["FID-10"]


def test_every_kind_of_input_gives_the_same_score(tmp_path, pooled):
    images, reference = noise(40), noise(60, seed=1)
    folder = write_images(tmp_path / "folder", images)
    write_images(tmp_path / "deep", images, [f"a/b/{k:03d}.png" for k in range(40)])
    with zipfile.ZipFile(tmp_path / "images.zip", "w") as archive:
        for path in sorted(folder.iterdir()):
            archive.write(path, path.name)
    np.savez(tmp_path / "adm.npz", images.permute(0, 2, 3, 1).numpy())
    ref = write_images(tmp_path / "ref", reference)
    np.savez(tmp_path / "ref.npz", reference.permute(0, 2, 3, 1).numpy())
    write_statistics(str(ref), StatisticsOptions(out=tmp_path / "stats.npz", features=pooled))
    distances = [
        distance(score(images, ref=against, features=pooled))
        for images in (folder, tmp_path / "deep", tmp_path / "images.zip", tmp_path / "adm.npz")
        for against in (ref, tmp_path / "ref.npz", tmp_path / "stats.npz")
    ]
    assert distances == pytest.approx([distances[0]] * len(distances), rel=1e-9)
    assert distances[0] > 0
    both = score(tmp_path / "stats.npz", ref=tmp_path / "stats.npz")  # needs no extractor
    assert distance(both) == pytest.approx(0, abs=1e-9)


def test_statistics_of_an_unknown_protocol_are_marked_in_the_score(tmp_path, pooled, monkeypatch):
    ref = write_images(tmp_path / "ref", noise(60))
    write_statistics(str(ref), StatisticsOptions(out=tmp_path / "own.npz", features=pooled))
    with np.load(tmp_path / "own.npz", allow_pickle=False) as file:
        assert file["mu"].shape == (48,)
        assert file["mu"].dtype == file["sigma"].dtype == np.float64
        features = noise(60).float().div(255).unfold(2, 2, 2).unfold(3, 2, 2).mean((-1, -2)).flatten(1).double().numpy()
        np.testing.assert_allclose(file["mu"], features.mean(0), atol=1e-6)
        np.testing.assert_allclose(file["sigma"], np.cov(features, rowvar=False), atol=1e-6)
        np.savez(tmp_path / "external.npz", mu=file["mu"], sigma=file["sigma"])
        np.savez(tmp_path / "other.npz", mu=file["mu"][:9], sigma=file["sigma"][:9, :9])
    (known,) = score(ref, ref=tmp_path / "own.npz", features=pooled)["scores"]
    (unknown,) = score(ref, ref=tmp_path / "external.npz", features=pooled)["scores"]
    assert "unknown protocol" not in known
    assert "unknown protocol" in unknown
    (of_external,) = score(tmp_path / "external.npz", ref=ref, features=pooled)["scores"]
    assert of_external.endswith("(unknown protocol), n unknown")
    with pytest.raises(InputError, match=r"--n 5.*statistics"):
        score(tmp_path / "own.npz", ref=ref, features=pooled, n=5)
    with pytest.raises(InputError, match=r"--features NAME:PATH"):
        score(ref, ref=tmp_path / "own.npz")
    with monkeypatch.context() as patched:
        patched.setattr(summary.SummaryBuilder, "update", None)  # rejected before any sample is processed
        with pytest.raises(InputError, match=r"48 features.* 9"):
            score(ref, ref=tmp_path / "other.npz", features=pooled)
    with pytest.raises(InputError, match=r"fid.*\bkid\b"):
        score(ref, ref=tmp_path / "own.npz", features=pooled, metrics=["kid"])
    pytest.importorskip("efficientnet_lite_pytorch")
    with pytest.raises(InputError, match=r"torchscript.*efficientnet"):
        score(ref, ref=tmp_path / "own.npz", features="efficientnet-lite0")


@pytest.mark.parametrize("keys", [["arr_0"], ["mu", "sigma"]], ids=["images", "statistics"])
def test_pickled_arrays_are_rejected_unread(tmp_path, pooled, keys):
    class Hostile:
        def __reduce__(self):
            return (open, (str(tmp_path / "hacked"), "w"))

    images = write_images(tmp_path / "images", noise(10))
    np.savez(tmp_path / "hostile.npz", **{key: np.array([Hostile()], dtype=object) for key in keys})
    with pytest.raises(InputError, match=r"hostile\.npz.*arrays"):
        score(images, ref=tmp_path / "hostile.npz", features=pooled)
    assert not (tmp_path / "hacked").exists()


@pytest.mark.parametrize(
    ("mode", "size", "message"),
    [
        ("RGB", (9, 8), r"20 colour 8×8.*000\.png; 1 colour 9×8.*odd\.png"),
        ("L", (8, 8), r"20 colour 8×8.*; 1 grey 8×8.*odd\.png"),
        ("RGBA", (8, 8), r"20 colour .*; 1 transparent 8×8"),
        ("I;16", (8, 8), r"20 colour .*; 1 16-bit 8×8"),
    ],
)
def test_mixed_images_are_rejected_with_an_example_of_each_kind(tmp_path, pooled, mode, size, message):
    folder = write_images(tmp_path / "images", noise(20))
    Image.new(mode, size).save(folder / "odd.png")
    with pytest.raises(InputError, match=message):
        score(folder, ref=folder, features=pooled)


def test_16_bit_colour_is_rejected_although_pillow_reads_it_as_8_bit(tmp_path, pooled):
    header = struct.pack(">IIBBBBB", 8, 8, 16, 2, 0, 0, 0)
    rows = zlib.compress(b"".join(b"\0" + bytes(8 * 6) for _ in range(8)))
    chunk = lambda kind, data: struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))
    (tmp_path / "deep").mkdir()
    for k in range(3):
        (tmp_path / "deep" / f"{k}.png").write_bytes(
            b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
        )
    with Image.open(tmp_path / "deep" / "0.png") as image:
        assert image.mode == "RGB"
    with pytest.raises(InputError, match=r"3 of 3 .*16-bit.*0\.png"):
        score(tmp_path / "deep", ref=tmp_path / "deep", features=pooled)


def test_linked_folders_are_read_and_dangling_links_count_as_broken(tmp_path, pooled):
    folder = write_images(tmp_path / "real", noise(1200))
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "a").symlink_to(folder)
    (tmp_path / "linked" / "loop").symlink_to(tmp_path / "linked")
    assert len(open_input("--ref", str(tmp_path / "linked"))) == 1200
    (folder / "nowhere.png").symlink_to(tmp_path / "nothing")
    result = score(folder, ref=folder, features=pooled, n=100)
    assert len(result["protocol"]["broken"]) == 1
    assert "nowhere.png" in result["protocol"]["broken"][0]


@pytest.mark.parametrize(("mode", "pixels"), [("RGBA", "transparent"), ("I;16", "16-bit")])
def test_transparent_and_16_bit_images_are_rejected(tmp_path, pooled, mode, pixels):
    (tmp_path / "images").mkdir()
    for k in range(3):
        Image.new(mode, (8, 8)).save(tmp_path / "images" / f"{k}.png")
    with pytest.raises(InputError, match=rf"3 of 3 .*{pixels}.*0\.png"):
        score(tmp_path / "images", ref=tmp_path / "images", features=pooled)


def test_a_few_broken_files_are_left_out_and_named_and_many_are_rejected(tmp_path, pooled, capsys):
    folder = write_images(tmp_path / "images", noise(2100))  # beyond FEW: read by other processes
    intact = distance(score(folder, ref=folder, features=pooled))
    (folder / "empty.png").write_bytes(b"")
    content = (folder / "000.png").read_bytes()
    (folder / "truncated.png").write_bytes(content[: len(content) // 2])
    result = score(folder, ref=folder, features=pooled)
    assert distance(result) == pytest.approx(intact, abs=1e-9)
    assert result["protocol"]["n"] == 2100
    empty, truncated = result["protocol"]["broken"]  # in the check of the header, and while decoding
    assert empty.startswith("empty.png: ")
    assert truncated.startswith("truncated.png: ")
    assert "empty.png" in capsys.readouterr().err
    (folder / "text.png").write_text("no picture")
    with pytest.raises(InputError, match=r"3 of 2,103 .*0\.1%"):
        score(folder, ref=folder, features=pooled)


@pytest.mark.parametrize(
    ("images", "reference", "n", "message"),
    [
        ({}, {"side": 16}, None, r"colour 8×8.*colour 16×16"),
        ({"channels": 1}, {}, None, r"grey 8×8.*colour 8×8"),
        ({}, {}, 11, r"--n.*\b11\b.*\b10\b"),
    ],
    ids=["size", "colour", "count"],
)
def test_images_and_reference_must_agree(tmp_path, pooled, images, reference, n, message):
    folder = write_images(tmp_path / "images", noise(10, **images))
    ref = write_images(tmp_path / "ref", noise(10, **reference))
    with pytest.raises(InputError, match=message):
        score(folder, ref=ref, features=pooled, n=n)


IMAGE_ARRAY = np.zeros((4, 8, 8, 3), np.uint8)


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"x": np.zeros(3)}, r"\bx\b.*`arr_0`"),
        ({"arr_0": np.zeros((4, 8, 8, 3))}, r"`arr_0` is torch\.float64 \[4, 8, 8, 3\].*uint8"),
        ({"arr_0": np.zeros((4, 8, 8, 4), np.uint8)}, r"uint8 \[N, H, W, 1 or 3\]"),
        ({"arr_0": IMAGE_ARRAY, "arr_1": np.zeros(3)}, r"`arr_1` is float64 \[3\]"),
        ({"arr_0": IMAGE_ARRAY[:0]}, r"no examples"),
        ({"arr_0": IMAGE_ARRAY, "arr_1": np.array(["a"] * 4)}, r"`arr_1` is <U1"),
        ({"mu": np.full(3, np.nan), "sigma": np.eye(3)}, r"\[D\] and \[D, D\]"),
        ({"mu": np.zeros(3), "sigma": np.full((3, 3), np.nan)}, r"\[D\] and \[D, D\]"),
    ],
)
def test_arrays_of_other_shapes_are_rejected(tmp_path, pooled, arrays, message):
    images = write_images(tmp_path / "images", noise(10))
    np.savez(tmp_path / "a.npz", **arrays)
    with pytest.raises(InputError, match=message):
        score(images, ref=tmp_path / "a.npz", features=pooled)


@pytest.mark.parametrize(
    ("name", "message"), [("a.npz", r"a\.npz: not an \.npz"), ("a.txt", r"--ref .*a\.txt.*folder.*zip")]
)
def test_files_of_other_formats_are_rejected(tmp_path, pooled, name, message):
    images = write_images(tmp_path / "images", noise(10))
    (tmp_path / name).write_text("no archive")
    with pytest.raises(InputError, match=message):
        score(images, ref=tmp_path / name, features=pooled)


def test_class_folders_and_dataset_json_are_scored_by_class(tmp_path, pooled):
    images = torch.cat([noise(20), noise(20, seed=1) // 2])
    names = [f"{'cat' if k < 20 else 'dog'}/{k:02d}.png" for k in range(40)]
    folder = write_images(tmp_path / "classes", images, names)
    swapped = write_images(tmp_path / "swapped", images, [names[(k + 20) % 40] for k in range(40)])
    same = score(folder, ref=folder, features=pooled, metrics=["classes"])
    wrong = score(swapped, ref=folder, features=pooled, metrics=["classes"])
    assert list(same["per_class"]) == ["cat", "dog"]
    assert max(same["per_class"].values()) == pytest.approx(0, abs=1e-9)
    assert distance(wrong) == pytest.approx(0, abs=1e-9)  # all classes together match
    assert min(wrong["per_class"].values()) > 0.1
    with zipfile.ZipFile(tmp_path / "edm.zip", "w") as archive:
        for k, name in enumerate(names):
            archive.write(folder / name, f"00000/img{k:08d}.png")
        labels = [[f"00000/img{k:08d}.png", int(k >= 20)] for k in range(40)]
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    edm = open_input("--ref", str(tmp_path / "edm.zip"))
    assert edm.data[[0, 39]][1]["label"].tolist() == [0, 1]
    assert edm.classes == ["0", "1"]
    flat = write_images(tmp_path / "flat", images)
    with pytest.raises(InputError, match=r"--per-class.*\bflat\b.*classes"):
        score(flat, ref=folder, features=pooled, metrics=["classes"])


def test_classes_are_matched_by_name(tmp_path, pooled):
    images = torch.cat([noise(20), noise(20, seed=1) // 2, noise(20, seed=2) // 4])
    names = [f"{'abc'[k // 20]}/{k:02d}.png" for k in range(60)]
    ref = write_images(tmp_path / "ref", images, names)
    partial = write_images(tmp_path / "partial", images[20:], names[20:])
    result = score(partial, ref=ref, features=pooled, metrics=["classes"])
    assert result["per_class"] == {"b": pytest.approx(0, abs=1e-9), "c": pytest.approx(0, abs=1e-9)}
    assert "mean of 2 classes" in result["scores"]
    other = write_images(tmp_path / "other", images[:40], [f"{'xy'[k // 20]}/{k:02d}.png" for k in range(40)])
    with pytest.raises(InputError, match=r"other.* 2 classes.*ref.*\b3\b"):
        score(other, ref=ref, features=pooled, metrics=["classes"])


def test_sampled_classes_are_named_by_the_model_in_every_format(runs, tmp_path, pooled):
    sample(tmp_path / "png", 60, runs["labels"], steps=1)
    sample(tmp_path / "npz", 60, runs["labels"], steps=1, format="npz")
    ours = {"features": pooled, "metrics": ["classes"], "ref": "digits"}
    png, npz = (score(tmp_path / kind, **ours)["per_class"] for kind in ("png", "npz"))
    assert png == pytest.approx(npz)
    assert set(png) <= {str(k) for k in range(10)}


def test_repeats_merge_class_by_class(runs, pooled):
    result = score(model=runs["labels"], features=pooled, n=80, repeats=3, metrics=["classes"])
    assert result["per_class"]
    assert set(result["standard_deviations"]) > set(result["per_class"])
    assert f"mean of {len(result['per_class'])} classes" in result["scores"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("{", r"dataset\.json.*damaged"),
        (json.dumps({"labels": [["000.png", 1]]}), r"2 of 3 images, such as '001\.png'"),
        (json.dumps({"labels": [[f"00{k}.png", [0.5]] for k in range(3)]}), r"dataset\.json.* labels"),
    ],
)
def test_a_damaged_dataset_json_is_named(tmp_path, content, message):
    folder = write_images(tmp_path / "images", noise(3))
    (folder / "dataset.json").write_text(content)
    with pytest.raises(InputError, match=message):
        open_input("--ref", str(folder))


def test_a_model_and_its_stored_samples_get_the_same_scores(runs, tmp_path, pooled):
    sample(tmp_path / "out", 50, runs["labels"], steps=2, seed=3)
    ours = {"features": pooled, "metrics": ["kid", "prdc", "memorised", "classes"]}
    stored = score(tmp_path / "out", **ours)
    drawn = score(model=runs["labels"], sampling={"steps": 2}, seed=3, n=50, **ours)
    for name, value in stored["scores"].items():
        assert drawn["scores"][name] == pytest.approx(value, rel=1e-2, abs=0.05)
    assert distance(drawn) == pytest.approx(distance(stored), rel=1e-3)
    samples = drawn["protocol"]["samples"]
    assert (samples["steps"], samples["nfe"], samples["model_sha256"]) == (
        2,
        3,
        build.load_model(runs["labels"]).sha256,
    )
    assert drawn["protocol"]["seeds"] == [3]
    assert (tmp_path / "out-nearest.png").is_file()
    assert (runs["labels"] / "nearest.png").is_file()


def test_repeats_give_mean_and_standard_deviation_over_seeds(runs, pooled):
    one, two = (distance(score(model=runs["images"], features=pooled, n=50, seed=seed)) for seed in (5, 6))
    both = score(model=runs["images"], features=pooled, n=50, seed=5, repeats=2)
    assert distance(both) == pytest.approx((one + two) / 2)
    (error,) = both["standard_deviations"].values()
    assert error == pytest.approx(abs(one - two) / 2**0.5)
    assert both["protocol"]["seeds"] == [5, 6]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"sampling": {"steps": 2}}, "--steps"),
        ({"sampling": {"guidance_scale": 2}}, "--guidance-scale"),
        ({"seed": 1}, "--seed"),
        ({"repeats": 2}, "--repeats"),
        ({"diagnose": True}, "--diagnose"),
        ({"model": "run"}, "--model"),
    ],
)
def test_options_of_a_model_are_rejected_for_images(tmp_path, pooled, options, named):
    images = write_images(tmp_path / "images", noise(10))
    with pytest.raises(InputError, match=named):
        score(images, features=pooled, **options)


@pytest.mark.parametrize("kind", ["images", "points"])
def test_the_diagnosis_compares_the_prior_with_real_x_T(runs, pooled, kind):
    features = {"features": pooled} if kind == "images" else {}
    result = score(model=runs[kind], diagnose=True, n=300, **features)
    diagnosis = result["diagnosis"]
    assert diagnosis["from_prior"]["value"] == pytest.approx(distance(result))
    assert diagnosis["from_data"]["value"] < diagnosis["from_prior"]["value"]  # after a few steps no prior is good
    assert diagnosis["of_data"]["value"] < diagnosis["from_data"]["value"]
    assert diagnosis["halves"] < diagnosis["at_x_T"]
    assert diagnosis["advice"].startswith("The prior ")


def test_the_diagnosis_uses_the_scored_samples(runs, pooled, monkeypatch):
    drawn = []
    draw = diagnose.samples_of
    monkeypatch.setattr(diagnose, "samples_of", lambda *arguments: drawn.append(arguments[4]) or draw(*arguments))
    result = score(model=runs["images"], diagnose=True, n=50, features=pooled)
    assert drawn == ["data"]
    assert result["diagnosis"]["from_prior"]["value"] == distance(result)


def test_samples_of_0_1_0_are_scored_with_their_settings(runs, tmp_path, pooled):
    sample(tmp_path / "out", 60, runs["images"])
    before = score(tmp_path / "out", features=pooled)
    rewrite_with_keys_of_0_1_0(tmp_path / "out" / "samples.json")
    after = score(tmp_path / "out", features=pooled)
    assert after["protocol"]["samples"] == before["protocol"]["samples"]
    assert after["protocol"]["samples"]["guidance_scale"] == 1
    assert after["scores"] == before["scores"]


def test_every_metric_is_loaded_once(tmp_path, pooled, monkeypatch):
    loaded = []
    load = metric.load_metric
    monkeypatch.setattr(metric, "load_metric", lambda name: loaded.append(name) or load(name))
    images = write_images(tmp_path / "images", noise(20))
    score(images, ref=images, features=pooled, metrics=["kid"])
    assert loaded == ["fid", "kid"]


def test_looking_for_captions_draws_no_sample(runs, monkeypatch):
    model = build.load_model(runs["images"])
    samples = samples_of(model, settings_of(model.components), 0, 60)
    monkeypatch.setattr(GeneratedDataset, "__getitem__", lambda *_: pytest.fail("a sample was drawn"))
    with pytest.raises(InputError, match="--text"):
        check_captions(samples.random_subset(50))


def test_references_are_cached_by_content_and_protocol(tmp_path, pooled, monkeypatch):
    ref, images = write_images(tmp_path / "ref", noise(40)), write_images(tmp_path / "images", noise(30, seed=1))
    built = []
    gather = summary.SummaryBuilder.summary
    monkeypatch.setattr(
        summary.SummaryBuilder, "summary", lambda self, broken=(): built.append(1) or gather(self, broken)
    )
    count = lambda *more, **options: (built.clear(), score(images, ref=ref, features=pooled, **options), len(built))
    first = count()
    again = count()
    assert (first[2], again[2]) == (2, 1)  # the samples alone
    assert first[1]["scores"] == again[1]["scores"]
    assert count(cache=False)[2] == 2
    assert count(metrics=["memorised"])[2] == 2  # needs more of the reference
    Image.new("RGB", (8, 8)).save(ref / "000.png")
    assert count()[2] == 2
    labels = {"labels": [[path.name, k % 2] for k, path in enumerate(sorted(ref.glob("*.png")))]}
    (ref / "dataset.json").write_text(json.dumps(labels))
    assert count()[2] == 2  # other classes are other content
    (damaged,) = [path for path in summary.cache_folder().iterdir() if path.stat().st_mtime_ns == max(
        p.stat().st_mtime_ns for p in summary.cache_folder().iterdir())]  # fmt: skip
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert count()[2] == 2
    assert count()[2] == 1
    assert not [path for path in summary.cache_folder().iterdir() if path.suffix != ".safetensors"]


def test_several_processes_may_build_one_reference_at_once(tmp_path):
    script = """
import torch
from tdpm_cli.evaluation.summary import Summary, cached, cache_folder
summary = Summary(9, torch.zeros(300), torch.eye(300), torch.zeros(200, 300), torch.arange(200))
for k in range(60):
    result = cached({"k": k}, lambda: summary)  # fails here if it reads a file that another process is writing
    assert result.count == 9
    assert torch.equal(result.covariance, torch.eye(300))
    for path in cache_folder().glob("*.safetensors"):
        path.unlink(missing_ok=True)
"""
    running = [subprocess.Popen([sys.executable, "-c", script], cwd=tmp_path, stderr=subprocess.PIPE) for _ in range(3)]
    assert [(process.communicate()[1].decode(), process.returncode) for process in running] == [("", 0)] * 3
    assert not list(summary.cache_folder().glob("*.part"))


def test_an_unwritable_cache_changes_no_score(tmp_path, pooled, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    images = write_images(tmp_path / "images", noise(10))
    assert distance(score(images, ref=images, features=pooled)) == pytest.approx(0, abs=1e-9)


def save(path, images):
    np.savez(path, images.permute(0, 2, 3, 1).numpy())
    return path


def test_features_are_kept_from_all_classes_of_sorted_data(tmp_path, pooled, monkeypatch):
    monkeypatch.setattr("tdpm_cli.evaluation.summary.MAX_FEATURES", 400)
    draw = lambda seed: torch.cat([noise(1000, side=4, seed=4 * seed + k) // 4 + 60 * k for k in range(4)])
    ref, samples = save(tmp_path / "ref.npz", draw(0)), save(tmp_path / "out.npz", draw(1).flip(0))
    scores = score(samples, ref=ref, features=pooled, metrics=["prdc"])["scores"]
    assert scores["precision (k = 5)"] > 0.9
    assert scores["coverage (k = 5)"] > 0.9


def test_copies_of_any_training_example_count_as_memorised(tmp_path, pooled, monkeypatch):
    monkeypatch.setattr("tdpm_cli.evaluation.summary.MAX_FEATURES", 10)
    train = noise(300)
    ref, copies = save(tmp_path / "ref.npz", train), save(tmp_path / "out.npz", train[100:150])
    assert score(copies, ref=ref, features=pooled, metrics=["memorised"])["scores"]["memorised"] == 1


def test_eval_warns_of_too_few_samples(tmp_path, pooled, capsys):
    images = write_images(tmp_path / "images", noise(48))
    score(images, ref=images, features=pooled)
    assert re.search(r"warning: .*48 .*48", capsys.readouterr().err)
    score(write_images(tmp_path / "more", noise(49)), ref=tmp_path / "more", features=pooled)
    assert "warning" not in capsys.readouterr().err


def test_the_json_carries_the_protocol(runs, tmp_path, pooled):
    score(model=runs["images"], features=pooled, n=60, metrics=["kid"], json_file=tmp_path / "s.json")
    protocol = json.loads((tmp_path / "s.json").read_text())["protocol"]
    assert {"n", "seeds", "samples", "samples_sha256", "broken", "reference", "features", "text", "quantised",
            "definitions", "kept", "versions"} == set(protocol)  # fmt: skip
    assert {"model_sha256", "weights", "sampler", "steps", "nfe", "guidance_scale"} <= set(protocol["samples"])
    assert set(protocol["features"]) == {"name", "resize", "weights_sha256"}
    assert protocol["features"]["name"].startswith("torchscript-")
    assert protocol["reference"]["data"] == {"name": "digits"}
    assert len(protocol["reference"]["sha256"]) == 64


def test_sweep_scores_every_combination_and_marks_the_best(runs, tmp_path, pooled):
    options = {"samplers": ["ddim", "ddpm"], "starts": ["prior", "data"], "n": 40, "features": pooled}
    rows = run_sweep([1, 2], [runs["images"]], **options, out=tmp_path / "sweep")
    assert len(rows) == 8
    assert [row["nfe"] for row in rows if row["start"] == "prior" and row["sampler"] == "ddim"] == [2, 3]
    assert [row["nfe"] for row in rows if row["start"] == "data" and row["sampler"] == "ddim"] == [1, 2]
    best = [row for row in rows if is_best(row, rows)]
    assert {(row["start"], row["nfe"]) for row in best} == {("prior", 2), ("prior", 3)}
    alone = score(model=runs["images"], sampling={"steps": 2, "sampler": "ddpm"}, n=40, features=pooled)
    (same,) = [row for row in rows if (row["sampler"], row["start"], row["steps"]) == ("ddpm", "prior", 2)]
    assert same["scores"] == pytest.approx(alone["scores"])
    with (tmp_path / "sweep" / "sweep.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [float(row[same["metric"]]) for row in table] == [row["scores"][same["metric"]] for row in rows]
    pytest.importorskip("matplotlib")
    with Image.open(tmp_path / "sweep" / "sweep.png") as picture:
        assert picture.size[0] > 300


def test_a_sweep_over_spacings(runs, tmp_path, pooled):
    rows = run_sweep([4], [runs["images"]], spacings=[1, 2], n=40, features=pooled, out=tmp_path)
    assert [row["spacing"] for row in rows] == [1, 2]
    for row in rows:
        alone = score(model=runs["images"], sampling={"spacing": row["spacing"]}, n=40, features=pooled)
        assert row["scores"] == pytest.approx(alone["scores"])
        assert row["protocol"]["samples"]["spacing"] == row["spacing"]
    assert rows[0]["scores"] != rows[1]["scores"]
    with pytest.raises(InputError, match=r"--spacing.*0\.5"):
        run_sweep([4], [runs["images"]], spacings=[0.5], n=40, features=pooled, out=tmp_path)


def test_a_sweep_from_real_x_T_draws_at_most_one_sample_per_example(runs, tmp_path, pooled, capsys):
    rows = run_sweep([1], [runs["images"]], starts=["prior", "data"], n=1800, features=pooled, out=tmp_path)
    assert [row["protocol"]["n"] for row in rows] == [1797, 1797]
    assert [row["protocol"]["samples"]["nfe_text"] for row in rows] == ["1 + 1", "0 + 1"]
    assert "1,797" in capsys.readouterr().err


def test_a_sweep_continues_and_keeps_its_earlier_rows(runs, tmp_path, pooled, monkeypatch):
    ours = {"n": 30, "features": pooled, "out": tmp_path}
    first = run_sweep([1], [runs["images"]], **ours)
    monkeypatch.setattr("tdpm_cli.evaluation.sweep.protocol_of", lambda *arguments: pytest.fail("scored again"))
    assert run_sweep([1], [runs["images"]], **ours) == first
    monkeypatch.undo()
    both = run_sweep([1, 2], [runs["images"]], **ours)
    assert both[0]["scores"] == first[0]["scores"]
    fewer = run_sweep([1], [runs["images"]], **{**ours, "n": 20})
    assert list(fewer[0]["scores"].values()) != list(first[0]["scores"].values())
    assert len(json.loads((tmp_path / "sweep.json").read_text())["rows"]) == 3
    (tmp_path / "sweep.json").write_text("{")
    with pytest.raises(InputError, match=r"sweep\.json.*damaged"):
        run_sweep([1], [runs["images"]], **ours)


def test_a_sweep_of_0_1_0_is_reported_and_continued(runs, tmp_path, pooled):
    ours = {"features": pooled, "out": tmp_path}
    (row,) = run_sweep([1], [runs["images"]], n=30, **ours)
    old = {**row, "protocol": {**row["protocol"], "samples": with_keys_of_0_1_0(row["protocol"]["samples"])}}
    (tmp_path / "sweep.json").write_text(json.dumps({"rows": [with_keys_of_0_1_0(old)]}))
    assert read_sweep(tmp_path / "sweep.json") == [row]
    run_sweep([1], [runs["images"]], n=20, **ours)
    rows = read_sweep(tmp_path / "sweep.json")
    assert [row["protocol"]["n"] for row in rows] == [30, 20]
    assert [row["NFE"] for row in table_rows(rows)] == ["2", "2"]


def test_sweeps_of_several_models_need_one_reference(runs, tmp_path, pooled):
    rows = run_sweep([1], [runs["images"], runs["labels"]], guidance_scales=[1], n=20, features=pooled, out=tmp_path)
    assert [row["model"] for row in rows] == [str(runs["images"]), str(runs["labels"])]
    with pytest.raises(InputError, match=r"different data.*--ref"):
        run_sweep([1], [runs["images"], runs["points"]], n=20, features=pooled, out=tmp_path)
    with pytest.raises(InputError, match=r"--start.*'priro'.*'prior'"):
        run_sweep([1], [runs["images"]], starts=["priro"], out=tmp_path)
    with pytest.raises(InputError, match=r"--steps.*\b1001\b"):
        run_sweep([1001], [runs["images"]], out=tmp_path)


def test_the_report_contains_scores_images_curves_and_protocol(runs, tmp_path, pooled):
    pytest.importorskip("matplotlib")
    run_sweep([1, 2], [runs["labels"]], n=30, features=pooled)
    score(model=runs["labels"], features=pooled, n=60, metrics=["memorised", "classes"], diagnose=True,
             report=tmp_path / "report.html")  # fmt: skip
    page = (tmp_path / "report.html").read_text()
    for heading in ("Scores", "By class", "Diagnosis", "Samples", "Nearest neighbours", "Quality against network calls",
                 "Training", "Protocol", "weights_sha256"):  # fmt: skip
        assert heading in page
    assert page.count("data:image/png;base64") == 2
    assert page.count("<svg") == 2


@pytest.mark.slow
def test_the_distance_rises_with_noise_blur_and_dropped_classes():
    pytest.importorskip("efficientnet_lite_pytorch")
    digits, labels = open_digits(None, (1, 8, 8))[range(1797)]
    order = torch.randperm(1797, generator=torch.Generator().manual_seed(0))
    first, second = order[:898], order[898:]
    scorer = Scorer(
        in_memory(digits[first]), load_extractor("efficientnet-lite0", None, torch.device("cpu")), cache=False
    )
    score = lambda images: scorer.score(in_memory(images)).distance.value
    held, kinds = digits[second], labels["label"][second]
    draw = torch.randn(held.shape, generator=torch.Generator().manual_seed(1))
    noisy = lambda sigma: (held + 127.5 * sigma * draw).round().clamp(0, 255).byte()  # sigma in units of [-1, 1]
    blurred = lambda sigma: gaussian_blur(held.float(), [5, 5], [sigma, sigma]).round().byte()
    rows = {
        "noise": [score(noisy(sigma)) for sigma in (0, 0.05, 0.1, 0.2)],
        "blur": [score(blurred(sigma)) for sigma in (0.2, 0.4, 0.6, 0.9)],
        "dropped classes": [score(held[kinds >= dropped]) for dropped in (0, 1, 3, 5)],
    }
    for what, values in rows.items():
        print(what, [f"{value:.1f}" for value in values])
        assert values == sorted(values), what
    assert rows["noise"][0] == rows["dropped classes"][0]
    assert rows["noise"][-1] > 5 * rows["noise"][0]


def in_memory(images):
    """Images uint8 [N, C, H, W] as a source."""
    return Examples("memory", TensorData(images), tuple(images.shape[1:]), lambda: "", {})


class TensorData:
    def __init__(self, images):
        self.images = images

    def __len__(self):
        return len(self.images)

    def __getitem__(self, indices):
        return self.images[torch.as_tensor(indices)], {}
