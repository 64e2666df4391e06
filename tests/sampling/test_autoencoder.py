"""The model as an auto-encoder on the command line: encode, decode, reconstruct, interpolate, edit."""

import csv
import json
import pickle
import sys

import numpy as np
import pytest
import torch
from components import perturbed
from helpers import Stopped, export, rewrite_with_keys_of_0_1_0, sample, split_options, tiny_image_preset
from PIL import Image

from tdpm_cli.checkpoints import weights
from tdpm_cli.cli import main
from tdpm_cli.config import schema as config
from tdpm_cli.data.datasets.digits import digits
from tdpm_cli.data.decode import fit
from tdpm_cli.engine.interpolation import between_x_T, slerp
from tdpm_cli.engine.noise import Noise
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


@pytest.fixture(scope="module")
def active(tmp_path_factory):
    """Weights far from 0, so that every output depends on its input: a model of a few steps is nearly linear."""
    components = build.build(config.load_config(tiny_image_preset()))
    perturbed(components.model, 0.2)
    path = tmp_path_factory.mktemp("active") / "model.safetensors"
    weights.write_weights(path, components.model, build.header(components.config, "ema-1", 0))
    return path


def originals(pictures):
    """The pictures as the model sees them, uint8 [3, 1, 8, 8], by the definition of a centre crop."""
    paths = sorted(pictures.rglob("*.png"))
    return torch.stack([torch.from_numpy(np.array(fit(Image.open(path), (8, 8), "centre")))[None] for path in paths])


def x_T_in(folder):
    with np.load(folder / "x_T.npz", allow_pickle=False) as file:
        return torch.from_numpy(file["x_T"])


def decoded_in(folder):
    return torch.from_numpy(np.stack(list(read(folder, "0*.png").values())))[:, None].byte()


def mean_error(one, two):
    return float((one.double() - two.double()).abs().mean())


def test_decoding_the_encoded_images_returns_them(active, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", active, steps=50)
    decode(tmp_path / "x", tmp_path / "y")
    assert [picture["source"] for picture in manifest(tmp_path / "x")["pictures"]] == ["0/a.png", "0/b.png", "1/c.png"]
    assert mean_error(decoded_in(tmp_path / "y"), originals(pictures)) < 2
    assert mean_error(decoded_in(tmp_path / "y"), originals(pictures).roll(1, 0)) > 20  # the order is that of the names


def test_decode_takes_its_settings_from_the_encoding(active, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", active, steps=8)
    decode(tmp_path / "x", tmp_path / "y")
    decode(tmp_path / "x", tmp_path / "z", steps=3)
    model, x_T = load(active, "cpu"), x_T_in(tmp_path / "x")
    by_steps = {steps: model.decode(x_T, steps=steps, sampler="ddim", clip=False) for steps in (8, 3)}
    assert torch.equal(decoded_in(tmp_path / "y"), by_steps[8])
    assert torch.equal(decoded_in(tmp_path / "z"), by_steps[3])
    assert not torch.equal(by_steps[8], by_steps[3])


def test_decode_reads_an_encoding_of_0_1_0(active, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", active, steps=8)
    decode(tmp_path / "x", tmp_path / "y")
    rewrite_with_keys_of_0_1_0(tmp_path / "x" / "pictures.json")
    assert "verb" in manifest(tmp_path / "x")
    decode(tmp_path / "x", tmp_path / "z")
    assert torch.equal(decoded_in(tmp_path / "y"), decoded_in(tmp_path / "z"))


def test_encode_reports_the_discriminators_logits(runs, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", runs["images"], steps=2, logits=True)
    expected = load(runs["images"], "cpu").logits(originals(pictures)).tolist()
    assert [picture["logit"] for picture in manifest(tmp_path / "x")["pictures"]] == pytest.approx(expected)
    assert len(set(expected)) == 3


@pytest.mark.parametrize("command", ["encode", "decode", "reconstruct"])
def test_the_sheet_shows_the_images(active, pictures, tmp_path, command):
    encode(str(pictures), tmp_path / "encode", active, steps=2)
    if command == "decode":
        decode(tmp_path / "encode", tmp_path / "decode")
    if command == "reconstruct":
        rebuild(str(pictures), tmp_path / "reconstruct", active, steps=[2])
    shown = originals(pictures) if command == "encode" else decoded_in(tmp_path / command)
    with Image.open(tmp_path / command / "sheet.png") as sheet:
        colours = set(np.asarray(sheet)[..., 0].flatten().tolist())
    assert set(shown.flatten().tolist()) <= colours


def test_encode_with_a_seed_draws_from_q(active, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", active, seed=4)
    model = load(active, "cpu")
    noise = Noise(4, range(3)).normal((1, 8, 8))
    T = model.schedule.T
    expected = model.schedule.alpha(T) * (originals(pictures) / 127.5 - 1) + model.schedule.sigma(T) * noise
    assert torch.allclose(x_T_in(tmp_path / "x"), expected.float(), atol=1e-5)


def test_reconstruct_loses_less_with_more_steps_and_smaller_t(active, tmp_path):
    out = tmp_path / "r"
    rows = rebuild("digits", out, active, steps=[2, 8], at=[50, 100], n=4)
    psnr = {(row["t"], row["steps"]): row["psnr"] for row in rows}
    assert list(psnr) == [(50, 2), (50, 8), (100, 2), (100, 8)]
    assert psnr[50, 8] > psnr[50, 2] + 5 > psnr[100, 2] + 10
    assert psnr[100, 8] > psnr[100, 2] + 5
    with (out / "error.csv").open() as file:
        assert [float(row["psnr"]) for row in csv.DictReader(file)] == list(psnr.values())
    error = decoded_in(out).double() - digits(None, (1, 8, 8))[range(4)][0].double()  # written from the last row
    each = (10 * torch.log10(255**2 / error.square().flatten(1).mean(1))).tolist()
    assert psnr[100, 8] == pytest.approx(np.mean(each))
    assert [picture["psnr"] for picture in manifest(out)["pictures"]] == pytest.approx(each)
    with Image.open(out / "error.png") as plot:
        assert plot.size[0] > 300


def test_reconstruct_from_noise_loses_the_image(active, tmp_path):
    (noisy,) = rebuild("digits", tmp_path / "n", active, steps=[8], n=4, seed=1)
    (inverted,) = rebuild("digits", tmp_path / "i", active, steps=[8], n=4)
    assert noisy["psnr"] < inverted["psnr"] - 10


@pytest.fixture
def of_32(tiny_images, tmp_path):
    """An untrained model of 32×32 in colour, and four images."""
    plain = tiny_images("data.name=images", "space.shape=[3, 32, 32]", "prior.name=gaussian", "backbone.attention=[]")
    components = build.build(config.load_config(plain))
    weights.write_weights(tmp_path / "m.safetensors", components.model, build.header(components.config, "ema-1", 0))
    (tmp_path / "four").mkdir()
    for k in range(4):
        pixels = np.random.default_rng(k).integers(0, 256, (32, 32, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "four" / f"{k}.png")
    return tmp_path / "m.safetensors", str(tmp_path / "four")


def test_lpips_is_computed_if_its_weights_are_present(of_32, runs, tmp_path, monkeypatch, capsys):
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    from tdpm_cli.evaluation.lpips import URL, Perceptual

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    model, four = of_32
    (row,) = rebuild(four, tmp_path / "r", model, steps=[2])
    place = tmp_path / "hub" / "checkpoints" / URL.rpartition("/")[2]
    note = capsys.readouterr().err
    assert "LPIPS" in note
    assert URL in note
    assert str(place) in note
    assert row.keys() == {"t", "steps", "psnr"}
    place.parent.mkdir(parents=True)
    theirs = alexnet()  # a stand-in: the tests download no weights
    torch.save(theirs.state_dict(), place)
    (row,) = rebuild(four, tmp_path / "s", model, steps=[2], seed=1)
    assert row["lpips"] > 0
    assert manifest(tmp_path / "s")["lpips"]["version"] == "0.1"
    perceptual, raw = Perceptual(32, 32), read_images(four, load(model, "cpu"), None).raw
    assert perceptual(raw, raw).tolist() == [0, 0, 0, 0]
    assert torch.equal(perceptual.network.net.get_submodule("slice3.6").weight, theirs.features[6].weight)
    place.write_bytes(pickle.dumps(print))
    with pytest.raises(InputError, match=r"AlexNet.*https"):
        Perceptual(32, 32)
    rebuild("digits", tmp_path / "d", runs["images"], steps=[2], n=2)
    assert "8×8" in capsys.readouterr().err
    monkeypatch.setitem(sys.modules, "lpips", None)
    with pytest.raises(InputError, match=r"pip install 'tdpm-cli\[lpips\]'"):
        Perceptual(32, 32)


def test_interpolation_starts_and_ends_at_its_images(runs, tmp_path):
    model = load(runs["images"], "cpu")
    interpolate(tmp_path / "z", runs["images"], seeds=[0, 1, 2], frames=4)
    frames = read(tmp_path / "z", "0*.png")
    assert len(frames) == 8
    assert (frames["000000-00.png"] == model.sample(1, seed=0)[0, 0].numpy()).all()
    assert (frames["000000-03.png"] == frames["000001-00.png"]).all()
    interpolate(tmp_path / "x", runs["images"], images="digits", n=2, frames=3, steps=50)
    frames = read(tmp_path / "x", "0*.png")
    assert np.abs(frames["000000-02.png"] - digits(None, (1, 8, 8))[[1]][0][0, 0].numpy()).max() <= 2
    assert manifest(tmp_path / "x")["pictures"][1]["share"] == 0.5


def test_edits_of_every_strength(runs, pictures, tmp_path):
    edit(str(pictures), tmp_path / "e", runs["labels"], strengths=[0.1, 1.0], labels=["3"])
    assert len(read(tmp_path / "e", "0*.png")) == 6
    description = manifest(tmp_path / "e")
    assert description["nfe_text"].startswith("0 + ")
    assert {picture["t"] for picture in description["pictures"]} == {10, 100}


def test_class_folders_are_labels_if_the_model_has_these_classes(runs, pictures, tmp_path):
    encode(str(pictures), tmp_path / "x", runs["labels"], seed=0)
    assert [picture["label"] for picture in manifest(tmp_path / "x")["pictures"]] == ["0", "0", "1"]
    (pictures / "1").rename(pictures / "cat")
    encode(str(pictures), tmp_path / "y", runs["labels"], seed=0)
    assert [picture["label"] for picture in manifest(tmp_path / "y")["pictures"]] == [None] * 3


def test_edit_accepts_one_file(runs, pictures, tmp_path):
    edit(str(pictures / "0" / "a.png"), tmp_path / "e", runs["images"], strengths=[0.5])
    assert [picture["source"] for picture in manifest(tmp_path / "e")["pictures"]] == ["a.png"]


COMMANDS = {
    "encode": lambda model, out: encode("digits", out, model, n=5, steps=4),
    "decode": lambda model, out: decode(out.parent / "x", out, model),
    "reconstruct": lambda model, out: rebuild("digits", out, model, n=5, steps=[2, 4]),
    "edit": lambda model, out: edit("digits", out, model, n=5, strengths=[0.3, 1.0]),
    "interpolate": lambda model, out: interpolate(out, model, seeds=[0, 1, 2], frames=3),
}


def contents(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def broken(*arguments):
    raise MemoryError


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_continues_where_it_stopped(runs, tmp_path, monkeypatch, capsys, command):
    run, model = COMMANDS[command], runs["images"]
    encode("digits", tmp_path / "x", model, n=5, steps=4)
    straight, out = tmp_path / "straight", tmp_path / "out"
    pieces_of = image_folder.pieces_of
    monkeypatch.setattr(image_folder, "pieces_of", lambda n, batch: pieces_of(n, min(batch, 2)))
    run(model, straight)
    for stops in (1, 2):  # each adds one piece
        with monkeypatch.context() as patched:
            patched.setattr(image_folder, "Interruption", Stopped)
            with pytest.raises(Interrupted):
                run(model, out)
        assert all(path.name.startswith(".") for path in out.iterdir())  # no unfinished file is visible
        assert len(list(out.rglob("*.npy"))) == stops
    with monkeypatch.context() as patched:
        patched.setattr(image_folder.ImageFolder, "finish", broken)
        with pytest.raises(MemoryError):
            run(model, out)
    (out / "000000.png.4711.part").write_bytes(b"half a picture")
    with monkeypatch.context() as patched:
        patched.setattr(output.Pieces, "write", broken)
        run(model, out)  # every piece exists
    assert contents(out) == contents(straight)
    assert not any("making" in name for name in contents(out))
    run(model, out)
    assert "done before" in capsys.readouterr().err
    (out / ("x_T.npz" if command == "encode" else manifest(out)["pictures"][1]["file"])).unlink()
    run(model, out)
    assert contents(out) == contents(straight)


@pytest.fixture
def begun(runs, tmp_path, monkeypatch):
    """The folder of an edit that was interrupted, and its options."""
    options = {"model": runs["images"], "n": 5, "strengths": [0.3, 1.0]}
    with monkeypatch.context() as patched:
        patched.setattr(image_folder, "Interruption", Stopped)
        with pytest.raises(Interrupted):
            edit("digits", tmp_path / "out", **options)
    return tmp_path / "out", options


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, r"seed: 0 .*\b1\b"),
        ({"strengths": [0.3]}, r"strengths: \[0\.3, 1\.0\] .*\[0\.3\]"),
        ({"n": 4}, "input_sha256"),
        ({"steps": 2}, r"steps: 4 .*\b2\b"),
    ],
    ids=lambda value: "".join(value) if isinstance(value, dict) else "",
)
def test_other_settings_are_rejected_in_an_unfinished_folder(begun, changes, message):
    out, options = begun
    with pytest.raises(InputError, match=message):
        edit("digits", out, **options | changes)


def test_another_command_is_rejected_in_an_unfinished_folder(begun):
    out, options = begun
    with pytest.raises(InputError, match=r"'edit'.*'encode'"):
        encode("digits", out, options["model"], n=5)


def test_an_unfinished_folder_of_0_1_0_is_continued(begun):
    out, options = begun
    rewrite_with_keys_of_0_1_0(out / ".making" / "plan.json")
    edit("digits", out, **options)
    assert len(read(out, "0*.png")) == 10
    assert manifest(out)["command"] == "edit"


def test_two_processes_do_not_write_one_folder(begun, monkeypatch):
    out, options = begun
    monkeypatch.setattr(locks.WorkLocks, "acquire", lambda self, number, count=1: number == locks.BEGINNING)
    with pytest.raises(InputError, match=r"another process"):
        edit("digits", out, **options)


def test_overwrite_replaces_an_unfinished_folder(begun):
    out, options = begun
    edit("digits", out, **options | {"strengths": [0.5], "seed": 1}, overwrite=True)
    assert set(contents(out)) == {"pictures.json", "sheet.png", *(f"{k:06d}-0.png" for k in range(5))}
    with pytest.raises(InputError, match=r"samples\.json"):
        sample(out, 2, options["model"])


def test_a_folder_of_samples_is_not_overwritten(runs, tmp_path):
    sample(tmp_path / "samples", 2, runs["images"])
    with pytest.raises(InputError, match=r"samples: .*pictures.json"):
        edit("digits", tmp_path / "samples", runs["images"], n=5, overwrite=True)


@pytest.fixture
def places(runs, pictures, tmp_path, monkeypatch):
    """A working directory with images, a folder in use, an undecodable image and an exported model."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "notes.txt").write_text("precious")
    (tmp_path / "broken").mkdir()
    (tmp_path / "broken" / "a.png").write_text("no image")
    return tmp_path


@pytest.mark.parametrize(
    ("command", "model", "message"),
    [
        ("encode nowhere o", "images", "IMAGES nowhere"),
        ("encode broken o", "images", "a.png"),
        ("encode cifar10 o", "images", "CIFAR-10"),
        ("encode fashion-mnist o", "images", "fashion-mnist"),
        ("encode pictures o", "points", "shape [2]"),
        ("encode pictures full", "images", "full"),
        ("encode pictures o --labels zebra", "labels", "zebra"),
        ("encode pictures o --labels 3", "images", "--labels"),
        ("encode pictures o --seed 1 --steps 3", "images", "--seed"),
        ("encode pictures o --logits", "exported", "discriminator"),
        ("decode full o", None, "pictures.json"),
        ("reconstruct pictures o --at 101", "images", "steps is 101"),
        ("reconstruct pictures o --steps 8 --at 4", "images", "--steps 8"),
        ("interpolate o", "images", "--images"),
        ("interpolate o --seeds 1", "images", "--seeds"),
        ("interpolate o --seeds 1,x", "images", "'x'"),
        ("edit pictures o --strength 1.5", "images", "strength is 1.5"),
        ("edit pictures o --strength much", "images", "much"),
    ],
)
def test_invalid_input_ends_with_status_2_and_writes_nothing(
    runs, places, monkeypatch, capsys, command, model, message
):
    if model == "exported":
        export(places / "exported.safetensors", runs["images"])
    source = {**runs, "exported": places / "exported.safetensors"}.get(model)
    monkeypatch.setattr(sys, "argv", ["tdpm", *command.split(), *(["--model", str(source)] if source else [])])
    with pytest.raises(SystemExit) as stop:
        main()
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
    assert not (places / "o").exists()
    assert [path.name for path in (places / "full").iterdir()] == ["notes.txt"]


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_slerp_keeps_the_norm(generator, share):
    a, b = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    assert float(slerp(a, b, share).square().mean()) == pytest.approx(1, abs=0.05)


def test_slerp_starts_at_its_first_argument(generator):
    a, b = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    assert torch.allclose(slerp(a, b, 0.0), a)
    assert torch.allclose(slerp(a, b, 1.0), b)
    assert torch.allclose(slerp(a, a, 0.4), a)


def test_x_T_between_two_keeps_its_noise(generator):
    a, b = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    schedule = linear().truncate(step=300)
    x_0 = torch.randn(2, 5000, generator=generator, dtype=torch.float64)
    x_T = [schedule.q_sample_T(clean, eps) for clean, eps in zip(x_0, (a, b), strict=True)]
    half = between_x_T((x_T[0], x_T[1]), (x_0[0], x_0[1]), 0.5, schedule)
    noise = half - schedule.alpha(300) * x_0.mean(0)
    assert float(noise.std()) == pytest.approx(schedule.sigma(300), rel=0.03)
    assert float((x_T[0] + x_T[1]).div(2).sub(schedule.alpha(300) * x_0.mean(0)).std()) < 0.8 * schedule.sigma(300)


def test_overwrite_removes_only_what_the_manifest_lists(begun):
    out, options = begun
    edit("digits", out, **options)
    content = manifest(out)
    content["pictures"] += [{"file": "../precious.png"}, {"file": ".."}]
    (out / "pictures.json").write_text(json.dumps(content))
    others = [out / "000007-0.png", out / "000000.png", out / "x_T.npz", out.parent / "precious.png"]
    for path in others:
        path.write_text("precious")
    edit("digits", out, **options | {"n": 2, "strengths": [0.5]}, overwrite=True)
    assert [path.read_text() for path in others] == ["precious"] * len(others)
    assert set(contents(out)) == {
        "pictures.json", "sheet.png", "000000-0.png", "000001-0.png", *(path.name for path in others[:3])
    }  # fmt: skip


def test_an_image_that_no_manifest_lists_is_not_replaced(begun):
    out, options = begun
    (out / "000001-0.png").write_text("precious")
    with pytest.raises(InputError, match=r"000001-0\.png"):
        edit("digits", out, **options)
    assert (out / "000001-0.png").read_text() == "precious"


def test_a_folder_at_the_place_of_the_manifest_is_rejected(runs, tmp_path):
    out = tmp_path / "out"
    (out / "pictures.json").mkdir(parents=True)
    with pytest.raises(InputError, match=r"pictures\.json.*folder"):
        edit("digits", out, model=runs["images"], n=2, strengths=[0.3])
    assert [path.name for path in out.iterdir()] == ["pictures.json"]


def test_a_link_at_the_place_of_the_pieces_is_not_followed(begun):
    out, options = begun
    (out / ".making").rename(out.parent / "elsewhere")
    (out / ".making").symlink_to(out.parent / "elsewhere")
    with pytest.raises(InputError, match=r"\.making"):
        edit("digits", out, **options, overwrite=True)
    assert (out.parent / "elsewhere" / "plan.json").is_file()
