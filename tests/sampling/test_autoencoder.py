"""The model as an auto-encoder on the command line: encode, decode, reconstruct, interpolate, edit."""

import csv
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from helpers import Stopped, sample, split_options
from PIL import Image

from tdpm_cli.checkpoints import weights
from tdpm_cli.cli import main
from tdpm_cli.config import schema as config
from tdpm_cli.engine.interpolation import between_x_T, slerp
from tdpm_cli.engine.schedules.linear import linear
from tdpm_cli.evaluation.options import ReconstructOptions
from tdpm_cli.evaluation.reconstruct import reconstruct
from tdpm_cli.runtime import locks
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build, image_folder, output
from tdpm_cli.sampling import decode as decoding
from tdpm_cli.sampling import edit as editing
from tdpm_cli.sampling import encode as encoding
from tdpm_cli.sampling import interpolate as interpolation
from tdpm_cli.sampling.input_images import read_images
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.options import DecodeOptions, EditOptions, EncodeOptions, InterpolateOptions


def rebuild(images, out, model, **options):
    """Reconstruct images with these options."""
    return reconstruct(images, out, ReconstructOptions(model=model, **options))


def encode(source, out, model=None, **options):
    """Encode with options of the command and of sampling as keywords."""
    encoding.encode(source, out, split_options(EncodeOptions, model=model, **options))


def decode(encoded, out, model=None, **options):
    """Decode with options of the command and of sampling as keywords."""
    decoding.decode(encoded, out, split_options(DecodeOptions, model=model, **options))


def edit(source, out, model=None, **options):
    """Edit with options of the command and of sampling as keywords."""
    editing.edit(source, out, split_options(EditOptions, model=model, **options))


def interpolate(out, model=None, **options):
    """Interpolate with options of the command and of sampling as keywords."""
    interpolation.interpolate(out, split_options(InterpolateOptions, model=model, **options))


@pytest.fixture
def pictures(tmp_path):
    """Three pictures of digits, larger than the model's, in two class folders."""
    for k, name in enumerate(("0/a.png", "0/b.png", "1/c.png")):
        path = tmp_path / "pictures" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(k).integers(0, 256, (16, 16), dtype=np.uint8)
        Image.fromarray(pixels).save(path)
    return tmp_path / "pictures"


def read(folder, pattern="*.png"):
    return {path.name: np.array(Image.open(path)).astype(int) for path in sorted(folder.glob(pattern))}


def manifest(folder):
    return json.loads((folder / "pictures.json").read_text())


def test_encode_and_decode_bring_the_pictures_back(runs, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", runs["images"], steps=50, logits=True)
    told = manifest(tmp_path / "x")
    assert [each["source"] for each in told["pictures"]] == ["0/a.png", "0/b.png", "1/c.png"]
    assert all(isinstance(each["logit"], float) for each in told["pictures"])
    with np.load(tmp_path / "x" / "x_T.npz", allow_pickle=False) as file:
        x_T = torch.from_numpy(file["x_T"])
    assert x_T.shape == (3, 1, 8, 8)
    decode(tmp_path / "x", tmp_path / "y")
    back = torch.from_numpy(np.stack(list(read(tmp_path / "y", "0*.png").values())))
    model = load(runs["images"], "cpu")
    assert torch.equal(back.byte()[:, None], model.decode(x_T, steps=50, sampler="ddim", clip=False))
    with Image.open(pictures / "0" / "a.png") as image:
        from tdpm_cli.data.decode import fit

        small = np.array(fit(image, (8, 8), "centre")).astype(int)
    assert np.abs(back[0].numpy() - small).max() <= 2
    with Image.open(tmp_path / "y" / "sheet.png") as sheet:
        assert sheet.size[0] > 100


def test_noised_x_T_are_those_of_the_seed(runs, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", runs["images"], seed=4)
    with np.load(tmp_path / "x" / "x_T.npz") as file:
        x_T = torch.from_numpy(file["x_T"])
    model = load(runs["images"], "cpu")
    assert torch.equal(x_T, model.noised(read_images(str(pictures), model, None).raw, seed=4))


def test_reconstruct_tells_what_is_lost(runs, tmp_path):
    out = tmp_path / "r"
    rows = rebuild("digits", out, runs["images"], steps=[2, 8], at=[50, 100], n=6, overwrite=True)
    assert [(row["t"], row["steps"]) for row in rows] == [(50, 2), (50, 8), (100, 2), (100, 8)]
    with (out / "error.csv").open() as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == [row["psnr"] for row in rows]
    noisy = rebuild("digits", tmp_path / "n", runs["images"], steps=[8], n=6, seed=1)
    assert noisy[0]["psnr"] < rows[-1]["psnr"]
    assert len(read(out, "0*.png")) == 6
    assert all(path.stat().st_size > 1000 for path in (out / "error.png", out / "sheet.png"))


@pytest.fixture
def of_32(tiny_images, tmp_path):
    """A model of 32×32 in colour that nobody trained, and four pictures."""
    plain = tiny_images("data.name=images", "space.shape=[3, 32, 32]", "prior.name=gaussian", "backbone.attention=[]")
    made = build.build(config.load_config(plain))
    weights.write_weights(tmp_path / "m.safetensors", made.model, build.header(made.config, "ema-1", 0))
    (tmp_path / "four").mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "four" / f"{k}.png")
    return tmp_path / "m.safetensors", str(tmp_path / "four")


def test_lpips_stands_beside_where_its_weights_are(of_32, runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    from tdpm_cli.evaluation.lpips import URL, Perceptual

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    model, four = of_32
    (row,) = rebuild(four, tmp_path / "r", model, steps=[2])
    place = tmp_path / "hub" / "checkpoints" / URL.rpartition("/")[2]
    assert f"note: LPIPS is left out: AlexNet's weights not found; put {URL} at {place}" in capsys.readouterr().err
    assert row.keys() == {"t", "steps", "psnr"}
    place.parent.mkdir(parents=True)
    theirs = alexnet()  # a stand-in: ImageNet's weights are nowhere to be had here
    torch.save(theirs.state_dict(), place)
    (row,) = rebuild(four, tmp_path / "s", model, steps=[2], seed=1)
    assert row["lpips"] > 0
    assert manifest(tmp_path / "s")["lpips"]["version"] == "0.1"
    judge, raw = Perceptual(32, 32), read_images(four, load(model, "cpu"), None).raw
    assert judge(raw, raw).tolist() == [0, 0, 0, 0]
    assert torch.equal(judge.network.net.get_submodule("slice3.6").weight, theirs.features[6].weight)
    place.write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match=r"not AlexNet's weights \(.*; put https"):
        Perceptual(32, 32)
    rebuild("digits", tmp_path / "d", runs["images"], steps=[2], n=2)
    assert "LPIPS is left out: images of 8×8" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'tdpm-cli\[lpips\]'"):
        Perceptual(32, 32)


def test_interpolation_meets_its_ends(runs, tmp_path):
    model = load(runs["images"], "cpu")
    interpolate(tmp_path / "z", runs["images"], seeds=[0, 1, 2], frames=4)
    frames = read(tmp_path / "z", "0*.png")
    assert len(frames) == 8
    assert (frames["000000-00.png"] == model.sample(1, seed=0)[0, 0].numpy()).all()
    assert (frames["000000-03.png"] == frames["000001-00.png"]).all()
    interpolate(tmp_path / "x", runs["images"], images="digits", n=2, frames=3, steps=50)
    frames = read(tmp_path / "x", "0*.png")
    from tdpm_cli.data.datasets.digits import digits

    assert np.abs(frames["000000-02.png"] - digits(None, (1, 8, 8))[[1]][0][0, 0].numpy()).max() <= 2
    assert manifest(tmp_path / "x")["pictures"][1]["share"] == 0.5


def test_edits_of_every_strength(runs, pictures, tmp_path):
    edit(str(pictures), tmp_path / "e", runs["labels"], strengths=[0.1, 1.0], labels=["3"])
    assert len(read(tmp_path / "e", "0*.png")) == 6
    told = manifest(tmp_path / "e")
    assert told["nfe_text"].startswith("0 + ")
    assert {each["t"] for each in told["pictures"]} == {10, 100}


def test_classes_are_those_of_the_folders_where_the_model_knows_them(runs, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", runs["labels"], seed=0)
    assert [each["label"] for each in manifest(tmp_path / "x")["pictures"]] == ["0", "0", "1"]
    (pictures / "1").rename(pictures / "cat")
    encode(str(pictures), tmp_path / "y", runs["labels"], seed=0)
    assert [each["label"] for each in manifest(tmp_path / "y")["pictures"]] == [None] * 3


def test_one_file_is_a_picture(runs, pictures, tmp_path):
    edit(str(pictures / "0" / "a.png"), tmp_path / "e", runs["images"], strengths=[0.5])
    assert [each["source"] for each in manifest(tmp_path / "e")["pictures"]] == ["a.png"]


VERBS = {
    "encode": lambda model, out: encode("digits", out, model, n=5, steps=4),
    "decode": lambda model, out: decode(out.parent / "x", out, model),
    "reconstruct": lambda model, out: rebuild("digits", out, model, n=5, steps=[2, 4]),
    "edit": lambda model, out: edit("digits", out, model, n=5, strengths=[0.3, 1.0]),
    "interpolate": lambda model, out: interpolate(out, model, seeds=[0, 1, 2], frames=3),
}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(*given):
    raise MemoryError


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_continues_where_it_stopped(runs, tmp_path, monkeypatch, capsys, verb):
    run, model = VERBS[verb], runs["images"]
    encode("digits", tmp_path / "x", model, n=5, steps=4)
    whole, out = tmp_path / "whole", tmp_path / "out"
    pieces_of = output.pieces_of
    monkeypatch.setattr(output, "pieces_of", lambda n, batch: pieces_of(n, min(batch, 2)))
    run(model, whole)
    for stops in (1, 2):  # each makes one more piece
        with monkeypatch.context() as patched:
            patched.setattr(image_folder, "Interruption", Stopped)
            with pytest.raises(Interrupted):
                run(model, out)
        assert all(path.name.startswith(".") for path in out.iterdir())  # nothing half-made to be seen
        assert len(list(out.rglob("*.npy"))) == stops
    with monkeypatch.context() as patched:
        patched.setattr(image_folder.ImageFolder, "finish", broken)
        with pytest.raises(MemoryError):
            run(model, out)
    (out / "000000.png.4711.part").write_bytes(b"half a picture")
    with monkeypatch.context() as patched:
        patched.setattr(output.Pieces, "write", broken)
        run(model, out)  # all pieces are there
    assert contents(out) == contents(whole)
    assert not any("making" in name for name in contents(out))
    run(model, out)
    assert "done before" in capsys.readouterr().err
    (out / ("x_T.npz" if verb == "encode" else manifest(out)["pictures"][1]["file"])).unlink()
    run(model, out)
    assert contents(out) == contents(whole)


def test_settings_are_not_mixed_in_one_folder(runs, tmp_path, monkeypatch):
    out = tmp_path / "out"
    with monkeypatch.context() as patched:
        patched.setattr(image_folder, "Interruption", Stopped)
        with pytest.raises(Interrupted):
            edit("digits", out, runs["images"], n=5, strengths=[0.3, 1.0])
    for options, message in [
        ({"seed": 1}, "seed: 0 there, 1 here"),
        ({"strengths": [0.3]}, r"strengths: \[0.3, 1.0\] there, \[0.3\] here"),
        ({"n": 4}, "given_sha256"),
        ({"steps": 2}, "steps: 4 there, 2 here"),
    ]:
        with pytest.raises(InputError, match=rf"other settings:(.|\n)*{message}"):
            edit("digits", out, runs["images"], **{"n": 5, "strengths": [0.3, 1.0], **options})
    with pytest.raises(InputError, match=r"verb: 'edit' there, 'encode' here"):
        encode("digits", out, runs["images"], n=5)
    with monkeypatch.context() as patched:
        patched.setattr(locks.WorkLocks, "acquire", lambda *given: False)
        with pytest.raises(InputError, match="another process writes there"):
            edit("digits", out, runs["images"], n=5, strengths=[0.3, 1.0])
    edit("digits", out, runs["images"], n=5, strengths=[0.5], seed=1, overwrite=True)
    assert set(contents(out)) == {"pictures.json", "sheet.png", *(f"{k:06d}-0.png" for k in range(5))}
    sample(tmp_path / "samples", 2, runs["images"])
    with pytest.raises(InputError, match=r"samples: .*pictures.json"):
        edit("digits", tmp_path / "samples", runs["images"], n=5, overwrite=True)
    with pytest.raises(InputError, match=r"samples.json"):
        sample(out, 2, runs["images"])


def test_wrong_input_gets_one_message_and_leaves_nothing(runs, pictures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    exported = tmp_path / "m.safetensors"
    from helpers import export

    export(exported, runs["images"])
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("precious")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no image")
    images, points = ["--model", runs["images"]], ["--model", runs["points"]]
    for words, message in [
        (["encode", "nowhere", "o", *images], "IMAGES nowhere"),
        (["encode", "broken", "o", *images], "a.png"),
        (["encode", "cifar10", "o", *images], "cifar10"),
        (["encode", "fashion-mnist", "o", *images], "fashion-mnist"),
        (["encode", "pictures", "o", *points], "shape [2]"),
        (["encode", "pictures", "full", *images], "full"),
        (["encode", "pictures", "o", "--model", runs["labels"], "--labels", "zebra"], "zebra"),
        (["encode", "pictures", "o", *images, "--labels", "3"], "--labels"),
        (["encode", "pictures", "o", *images, "--seed", "1", "--steps", "3"], "--seed"),
        (["encode", "pictures", "o", "--model", exported, "--logits"], "discriminator"),
        (["decode", "full", "o"], "pictures.json"),
        (["reconstruct", "pictures", "o", *images, "--at", "101"], "steps is 101"),
        (["reconstruct", "pictures", "o", *images, "--steps", "8", "--at", "4"], "--steps 8"),
        (["interpolate", "o", *images], "--images"),
        (["interpolate", "o", *images, "--seeds", "1"], "--seeds"),
        (["interpolate", "o", *images, "--seeds", "1,x"], "'x'"),
        (["edit", "pictures", "o", *images, "--strength", "1.5"], "strength is 1.5"),
        (["edit", "pictures", "o", *images, "--strength", "much"], "much"),
    ]:
        monkeypatch.setattr(sys, "argv", ["tdpm", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        err = capsys.readouterr().err
        assert (caught.value.code, message in err) == (2, True), (words, err)
        assert not (tmp_path / "o").exists()
    assert (tmp_path / "full" / "notes.txt").read_text() == "precious"


def test_slerp_keeps_the_norm_and_x_T_its_noise(generator):
    a, b = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    for share in (0.0, 0.3, 1.0):
        assert float(slerp(a, b, share).square().mean()) == pytest.approx(1, abs=0.05)
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, a, 0.4), a)
    schedule = linear().truncate(step=300)
    x_0 = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    x_T = [schedule.q_sample_T(clean, eps) for clean, eps in zip(x_0, (a, b), strict=True)]
    half = between_x_T((x_T[0], x_T[1]), (x_0[0], x_0[1]), 0.5, schedule)
    noise = half - schedule.alpha(300) * x_0.mean(0)
    assert float(noise.std()) == pytest.approx(schedule.sigma(300), rel=0.03)
    assert float((x_T[0] + x_T[1]).div(2).sub(schedule.alpha(300) * x_0.mean(0)).std()) < 0.8 * schedule.sigma(300)
