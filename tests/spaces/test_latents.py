"""Latents: training an autoencoder, encoding images once, and models that learn in its latent space."""

import importlib
import io
import json
import zipfile

import numpy as np
import pytest
import torch
from helpers import Stopped, export, sample, score
from PIL import Image

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import presets, registry
from tdpm_cli.config import schema as config
from tdpm_cli.config.external import Confirmation
from tdpm_cli.data.inspect import inspect
from tdpm_cli.data.loader import Order, batches
from tdpm_cli.engine.noise import Noise
from tdpm_cli.evaluation.inputs import data_of
from tdpm_cli.export.sampler_module import SamplerModule
from tdpm_cli.export.targets.diffusers import Diffusers
from tdpm_cli.export.targets.onnx import Onnx
from tdpm_cli.export.targets.torch import TorchExport
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted
from tdpm_cli.sampling import build
from tdpm_cli.sampling.model import load
from tdpm_cli.sampling.settings import settings_of
from tdpm_cli.spaces.latents import Autoencoder
from tdpm_cli.training import autoencoder as autoencode
from tdpm_cli.training import encode_latents
from tdpm_cli.training.autoencoder import AutoencoderOptions, autoencoder
from tdpm_cli.training.encode_latents import encode
from tdpm_cli.training.train import train

SIDE = 8


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    """40 pictures of a shade and a stripe, with captions."""
    folder = tmp_path_factory.mktemp("images")
    generator = np.random.default_rng(0)
    for k in range(40):
        pixels = np.full((SIDE, SIDE, 3), generator.integers(256, size=3), np.uint8)
        pixels[:, k % 8] = 0
        Image.fromarray(pixels).save(folder / f"{k:02d}.png")
        (folder / f"{k:02d}.txt").write_text(f"a stripe at {k % 8}\n")
    return folder


@pytest.fixture(scope="module")
def coder(images, tmp_path_factory):
    """The folder of a small autoencoder."""
    folder = tmp_path_factory.mktemp("autoencoder") / "coder"
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(autoencode, "BATCH", 8)
        autoencoder(folder, images, AutoencoderOptions(SIDE, channels=3, factor=2, width=8, images=4000))
    return folder


@pytest.fixture(scope="module")
def encoded(images, coder):
    """The images in its latents."""
    encode(images, coder.parent / "latents.zip", str(coder), SIDE)
    return coder.parent / "latents.zip"


@pytest.mark.parametrize(
    "settings",
    [{"block_out_channels": [8192] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
      "up_block_types": ["UpDecoderBlock2D"] * 4}, {"layers_per_block": 1 << 20}],
    ids=["wide", "deep"],
)  # fmt: skip
def test_an_autoencoder_larger_than_its_file_takes_no_memory(tmp_path, settings):
    plain = {"_class_name": "AutoencoderKL", "block_out_channels": [64], "latent_channels": 4, **settings}
    (tmp_path / "config.json").write_text(json.dumps(plain))
    weights.write_tensors(tmp_path / "diffusion_pytorch_model.safetensors", {"x": torch.zeros(16)}, {})
    with pytest.raises(InputError, match=r"model\.safetensors: weights of another model"):
        Autoencoder(str(tmp_path))


@pytest.mark.parametrize(
    ("key", "value"),
    [("latent_channels", "4"), ("latent_channels", None), ("block_out_channels", []), ("block_out_channels", [0]),
     ("scaling_factor", "1"), ("_class_name", ["AutoencoderKL"]), ("shift_factor", {})],
)  # fmt: skip
def test_a_damaged_config_of_an_autoencoder_is_named(tmp_path, key, value):
    plain = {"_class_name": "AutoencoderKL", "block_out_channels": [64], "latent_channels": 4}
    (tmp_path / "config.json").write_text(json.dumps({**plain, key: value}))
    with pytest.raises(InputError, match=rf"config\.json.*{key}|AutoencoderKL"):
        Autoencoder(str(tmp_path))


@pytest.mark.parametrize("key", ["shape", "autoencoder", "autoencoder_sha256", "source", "data"])
@pytest.mark.parametrize("value", [7, None, [], {}, [1, "a", 2]], ids=str)
def test_a_damaged_description_of_latents_is_named(encoded, tmp_path, key, value):
    path = tmp_path / "x.zip"
    with zipfile.ZipFile(encoded) as archive, zipfile.ZipFile(path, "w") as copy:
        about = json.loads(archive.read("latents.json"))
        copy.writestr("latents.json", json.dumps({**about, key: value}))
    with pytest.raises(InputError, match=rf"x\.zip.*{key}"):
        registry.load("dataset", "latents")(path, None)


def test_latents_open_no_images_that_only_they_name(coder, encoded, monkeypatch, tmp_path):
    settled = config.load_config(plain(coder, encoded).to_dict() | {"condition": {"name": "none"}})
    assert data_of(settled).text
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another-machine"))
    with pytest.raises(InputError, match=r"source .*--allow-external.*--ref"):
        data_of(settled)
    assert data_of(settled, Confirmation(everything=True)).text


def plain(coder, data, *assignments):
    small = ["backbone.channels=8", "backbone.mult=[1, 1]", "backbone.attention=[2]", "discriminator.channel_base=32",
             f"space.shape=[3, {SIDE}, {SIDE}]", f"space.autoencoder={coder}", "space.channels=3", "space.factor=2",
             "sample.guidance_scale=1.0",
             "train.duration=64", "train.batch=16", "train.snapshot=32", "train.log=16", "train.precision=fp32",
             "condition.tokens=8"]  # fmt: skip
    values = presets.override(presets.read_preset("emoji-64-latent"), [*small, *assignments])
    return config.load_config(presets.with_data(values, data, False))


def test_an_autoencoder_learns_and_is_one_of_diffusers(coder, images):
    from diffusers import AutoencoderKL

    ours = Autoencoder(str(coder))
    assert (ours.channels, ours.factor, ours.class_name) == (3, 2, "AutoencoderKL")
    data = registry.load("dataset", "images")(images, (3, SIDE, SIDE))
    x = data[range(40)][0].float() / 127.5 - 1
    mean, std = ours.encode(x)
    assert mean.shape == std.shape == (40, 3, 4, 4)
    assert std.min() > 0
    error = (ours.decode(mean, 7) - x).abs().mean()
    assert error < 0.75 * (x - x.mean(0)).abs().mean()
    assert float(mean.std()) * ours.scale == pytest.approx(1, rel=0.1)
    assert torch.allclose(ours.decode(mean, 7), ours.decode(mean, 40), atol=1e-5)  # slices change nothing
    theirs = AutoencoderKL.from_pretrained(coder)
    assert torch.equal(theirs.encode(x).latent_dist.mean, mean)
    with pytest.raises(InputError, match=r"coder.*exists"):
        autoencoder(coder, images, AutoencoderOptions(SIDE))


def test_a_vector_quantised_autoencoder_is_accepted(tmp_path):
    from diffusers import VQModel

    torch.manual_seed(0)
    VQModel(
        block_out_channels=(8, 8), norm_num_groups=4, latent_channels=2, num_vq_embeddings=16, scaling_factor=0.5,
        down_block_types=("DownEncoderBlock2D",) * 2, up_block_types=("UpDecoderBlock2D",) * 2,
    ).save_pretrained(tmp_path)  # fmt: skip
    space = registry.load("space", "latents")(shape=[3, 16, 16], autoencoder=str(tmp_path), channels=2, factor=2)
    raw = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    x = space.encode(raw, torch.Generator().manual_seed(0))
    assert torch.equal(x, space.encode(raw))  # nothing is random
    assert torch.allclose(x, 0.5 * Autoencoder(str(tmp_path)).encode(raw.float() / 127.5 - 1)[0])
    assert space.decode(x).shape == raw.shape


def test_stored_latents_equal_those_of_the_images(coder, encoded, images):
    space = registry.load("space", "latents")(shape=[3, SIDE, SIDE], autoencoder=str(coder), channels=3, factor=2)
    pixels = registry.load("dataset", "images")(images, (3, SIDE, SIDE))
    stored = registry.load("dataset", "latents")(encoded, (3, SIDE, SIDE))
    assert len(stored) == 40
    raw, raw_condition = stored[[3, 17]]
    original, captions = pixels[[3, 17]]
    assert raw_condition == captions == {"captions": [("a stripe at 3",), ("a stripe at 1",)]}
    assert torch.allclose(space.encode(raw), space.encode(original), atol=2e-3)  # float16
    drawn = [space.encode(images, torch.Generator().manual_seed(5)) for images in (raw, original)]
    assert torch.allclose(*drawn, atol=5e-3)
    assert not torch.allclose(drawn[0], space.encode(raw), atol=1e-3)
    assert torch.allclose(space.encode(stored.mirrored([3])), space.encode(original[:1].flip(-1)), atol=2e-3)
    mirrored, _ = next(batches(stored, Order(80, 0, 0, flip=True), workers=0))
    everything = torch.cat([stored[range(40)][0], stored.mirrored(range(40))])
    assert torch.equal(mirrored.flatten(1).sum(1).sort()[0], everything.flatten(1).sum(1).sort()[0])


def test_encoding_continues_where_it_stopped(coder, encoded, images, tmp_path, monkeypatch):
    monkeypatch.setattr(encode_latents, "ENCODED_TOGETHER", 16)
    out = tmp_path / "latents.zip"

    with monkeypatch.context() as patched:
        patched.setattr(encode_latents, "Interruption", Stopped)
        with pytest.raises(Interrupted):
            encode(images, out, str(coder), SIDE)
    assert not out.exists()
    encode(images, out, str(coder), SIDE)
    first, second = (zipfile.ZipFile(path) for path in (encoded, out))
    assert first.namelist() == second.namelist()
    for name in first.namelist()[1:-1]:
        one, two = (np.load(archive.open(name)) for archive in (first, second))
        assert np.allclose(one.astype(float), two.astype(float), atol=2e-3)
    out.with_name("latents.zip.part").write_bytes(out.read_bytes()[:1000])  # of a killed process
    encode(images, out, str(coder), SIDE)
    assert zipfile.ZipFile(out).namelist() == first.namelist()
    out.with_name("latents.zip.part").write_bytes(b"precious")
    with pytest.raises(InputError, match=r"latents\.zip\.part"):
        encode(images, out, str(coder), SIDE)
    assert out.with_name("latents.zip.part").read_bytes() == b"precious"


def test_a_model_of_latents_is_trained_sampled_and_scored_as_images(coder, encoded, tmp_path, pooled):
    run = train(plain(coder, encoded), tmp_path, "latent")
    train(plain(coder, encoded, "train.duration=32"), tmp_path, "again")
    train(plain(coder, encoded), tmp_path, "again")
    (straight, _), (resumed, _) = (
        weights.read_weights(checkpoint.list_checkpoints(tmp_path / name)[-1] / "model.safetensors")
        for name in ("latent", "again")
    )
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    sample(tmp_path / "out", 3, run, prompts=["a stripe at 2"])
    with Image.open(tmp_path / "out" / "000000.png") as image:
        assert image.size == (SIDE, SIDE)
    scores = score(model=run, n=40, features=pooled)
    assert scores["protocol"]["reference"]["n"] == 40
    assert all(np.isfinite(value) for value in scores["scores"].values())
    assert build.load_model(run).components.space.shape == (3, 4, 4)


SLOW = [pytest.param(suffix, marks=pytest.mark.slow) for suffix in ("pt2", "onnx")]


@pytest.mark.parametrize("suffix", [*SLOW, "folder"])
def test_a_model_of_latents_is_exported_with_its_decoder(coder, images, tmp_path, generator, suffix):
    pytest.importorskip("onnxruntime")
    settled = plain(coder, images, "backbone.groups=4").to_dict() | {"condition": {"name": "none"}}
    components = build.build(config.load_config(settled))
    for weight in components.model.parameters():
        weight.data += 0.1 * torch.randn(weight.shape, generator=generator)
    source = tmp_path / "model.safetensors"
    weights.write_weights(source, components.model, build.header(components.config, "ema-1", 0))
    settings = {"steps": 2, "sampler": "ddim", "spacing": 1.0}
    kind = "diffusers" if suffix == "folder" else None
    path = export(tmp_path / f"exported.{suffix}", source, kind, **settings)
    model = load(source, "cpu")
    n = 70  # more than diffusers' decoder takes in one graph
    expected = model.sample(n, seed=3, **settings)
    z = Noise(3, range(n)).normal(model.tdpm.prior.z_shape).flatten(1)
    images, _ = {"pt2": TorchExport, "onnx": Onnx, "folder": Diffusers}[suffix]().run(path, {"z": z})
    assert images.shape == (n, 3, SIDE, SIDE)
    assert (images.int() - expected.int()).abs().max() <= 1
    assert expected.float().std() > 1
    if suffix == "folder":
        stock = importlib.import_module("diffusers").DiffusionPipeline.from_pretrained(path, trust_remote_code=False)
        stock.set_progress_bar_config(disable=True)
        assert np.asarray(stock(batch_size=2, num_inference_steps=2, output_type="np").images).shape == (2, 8, 8, 3)


def test_an_exported_sampler_leaves_out_the_image_encoder(coder, images):
    settled = plain(coder, images).to_dict() | {"condition": {"name": "none"}}
    loaded = build.LoadedModel(build.build(config.load_config(settled)), coder, "", "model", 0)
    sampler = SamplerModule(loaded, settings_of(loaded.components), rgb=False)
    network = loaded.components.space.autoencoder.network
    decoder, encoder = (set(part.parameters()) for part in (network.decoder, network.encoder))
    assert decoder <= set(sampler.parameters())
    assert not encoder & set(sampler.parameters())
    assert not set(network.quant_conv.parameters()) & set(sampler.parameters())


def test_a_latent_model_can_train_on_images(coder, images, tmp_path):
    run = train(plain(coder, images, "train.duration=16", "train.flip=true"), tmp_path, "images")
    assert build.load_model(run).components.config.data.name == "images"


@pytest.mark.parametrize(
    ("shape", "kind", "message"),
    [
        ((1 << 30, 1 << 20), np.float16, "shape"),
        ((2, 2, 3, 4, 5), object, "pickled"),
        ((2, 2), np.float16, "shape"),
    ],
)
def test_a_damaged_latent_is_named_before_memory_is_allocated(encoded, tmp_path, shape, kind, message):
    damaged = tmp_path / "damaged.zip"
    with zipfile.ZipFile(encoded) as plain, zipfile.ZipFile(damaged, "w") as archive:
        archive.writestr("latents.json", plain.read("latents.json"))
        bad = io.BytesIO()
        np.lib.format.write_array_header_1_0(bad, {"shape": shape, "fortran_order": False, "descr": np.dtype(kind).str})
        archive.writestr("00000/00000000.npy", bad.getvalue())
    with pytest.raises(InputError, match=rf"00000000\.npy.*{message}"):
        registry.load("dataset", "latents")(damaged, None)[[0]]


@pytest.fixture(scope="module")
def places(coder, encoded, images, tmp_path_factory):
    """Paths by name: the autoencoder, latents, images, an empty folder, and damaged variants."""
    folder = tmp_path_factory.mktemp("places")
    (folder / "unet").mkdir()
    (folder / "unet" / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))
    with zipfile.ZipFile(encoded) as old, zipfile.ZipFile(folder / "moved.zip", "w") as new:
        for name in old.namelist():
            content = old.read(name)
            moved = content.replace(str(images).encode(), b"/nowhere") if name == "latents.json" else content
            new.writestr(name, moved)
    return {"coder": coder, "encoded": encoded, "images": images, "empty": folder, "unet": folder / "unet",
            "moved": folder / "moved.zip"}  # fmt: skip


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": [3, 9, 8]}, r"space\.factor.*\b2\b"),
        ({"channels": 4}, r"space\.channels.*\b4\b.*space\.factor.*\b2\b.*\b3 channels"),
        ({"factor": 4}, r"space\.factor.*\b4\b"),
        ({"scale": 77.0}, r"space\.scale.*\b77\b"),
        ({"autoencoder": "nowhere"}, r"nowhere(.|\n)*tdpm data autoencoder"),
        ({"autoencoder": "unet"}, r"UNet2DModel.*AutoencoderKL, VQModel"),
        ({"autoencoder": "images"}, r"config\.json"),
    ],
    ids=["shape", "channels", "factor", "scale", "missing autoencoder", "other network", "no network"],
)
def test_a_space_that_does_not_fit_its_autoencoder_is_rejected(places, changes, message):
    options = {"shape": [3, 8, 8], "autoencoder": "coder", "channels": 3, "factor": 2} | changes
    options["autoencoder"] = str(places.get(options["autoencoder"], options["autoencoder"]))
    with pytest.raises(InputError, match=message):
        registry.load("space", "latents")(**options).encode(torch.zeros(1, 3, 8, 8, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("path", "shape", "message"),
    [
        (None, None, r"tdpm data encode"),
        ("encoded", (3, 4, 4), r"\[3, 8, 8\].*space"),
    ],
    ids=["no path", "other shape"],
)
def test_latents_that_do_not_fit_are_rejected(places, path, shape, message):
    with pytest.raises(InputError, match=message):
        registry.load("dataset", "latents")(places.get(path), shape)


def test_missing_images_of_latents_are_named(places):
    latents = registry.load("dataset", "latents")(places["moved"], None)
    with pytest.raises(InputError, match=r"/nowhere(.|\n)*--ref PATH"):
        latents.images()


def test_inspect_rejects_latents_and_names_their_images(encoded, images):
    with pytest.raises(InputError, match=rf"{encoded}: .*{images.resolve()}"):
        inspect(encoded)


@pytest.mark.parametrize(
    ("source", "name", "side", "message"),
    [
        ("images", "x.npz", SIDE, r"x\.npz.*\.zip"),
        ("images", "x.zip", 7, r"--resolution.*\b7\b"),
        ("missing", "x.zip", SIDE, r"missing: no such"),
    ],
    ids=["format", "resolution", "missing images"],
)
def test_encoding_rejects_its_options_and_writes_nothing(places, coder, tmp_path, source, name, side, message):
    with pytest.raises(InputError, match=message):
        encode(places.get(source, tmp_path / source), tmp_path / name, str(coder), side)
    assert not (tmp_path / name).exists()


def test_an_autoencoder_by_an_odd_factor_is_rejected(images, tmp_path):
    with pytest.raises(InputError, match=r"--factor.*\b3\b"):
        autoencoder(tmp_path / "a", images, AutoencoderOptions(SIDE, factor=3))


def test_training_without_its_autoencoder_leaves_no_run(coder, encoded, tmp_path):
    (coder / "config.json").rename(coder / "kept.json")
    try:
        with pytest.raises(InputError, match=r"config\.json"):
            train(plain(coder, encoded), tmp_path, "run")
        assert not (tmp_path / "run").exists()
    finally:
        (coder / "kept.json").rename(coder / "config.json")
