"""Exports in their own runtimes: what they give is what we give."""

import contextlib
import importlib
import json
import os
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch
from helpers import export
from PIL import Image

from scripts.stress_tests.limits import full_disk
from tdpm_cli.checkpoints import weights
from tdpm_cli.config import presets, registry
from tdpm_cli.config import schema as config
from tdpm_cli.convert.convert import load_denoiser, preset_of_denoiser
from tdpm_cli.export.targets.onnx import Onnx
from tdpm_cli.export.targets.torch import TorchExport
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.model import load


@pytest.fixture
def model(tiny_images, tiny, tmp_path, generator):
    """A file of a small model whose every weight is away from where it began."""

    def make(*assignments, points=False):
        plain = tiny("prior.name=shared") if points else tiny_images("backbone.groups=4", *assignments)
        components = build.build(config.load_config(plain))
        with torch.no_grad():
            for weight in components.model.parameters():
                weight += 0.05 * torch.randn(weight.shape, generator=generator)
        path = tmp_path / f"model-{len(list(tmp_path.iterdir()))}.safetensors"
        weights.write_weights(path, components.model, build.header(components.config, "ema-1", 128))
        return path

    return make


LABELS = ["condition.name=labels", "condition.classes=10"]
SMALL = ["backbone.mult=[1]", "backbone.attention=[8]"]


def test_a_program_runs_without_our_code(model, tmp_path):
    source = model(*LABELS, *SMALL)
    path = export(tmp_path / "m.pt2", source, steps=2, sampler="ddpm", guidance_scale=2.0, licence="CC0-1.0")
    about = {"tdpm.json": ""}
    program = torch.export.load(path, extra_files=about).module()
    about = json.loads(about["tdpm.json"])
    assert (about["steps"], about["nfe"], about["licence"], about["T"]) == ("2", "1 + 2·2 = 5", "CC0-1.0", "100")
    model = load(source, "cpu")
    generator = torch.Generator().manual_seed(0)
    inputs = {"z": torch.randn(4, 64, generator=generator), "noise": torch.randn(4, 1, 1, 8, 8, generator=generator),
              "label": torch.tensor([1, 2, 3, 10])}  # fmt: skip
    images, x_0 = program(inputs)
    assert images.shape == (4, 1, 8, 8)
    assert images.dtype == torch.uint8
    other, _ = program(inputs | {"label": torch.tensor([4, 4, 4, 4])})
    assert not torch.equal(other, images)
    assert torch.equal(model.space.decode(x_0), images)


TEXT = ["condition.name=text", "condition.tokens=6", "condition.examples=[one, a two, three of them]"]


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "suffix"), [(TEXT, "pt2"), (TEXT, "onnx"), (LABELS, "onnx")])
def test_a_sampler_takes_conditions(model, tmp_path, kind, suffix):
    if suffix == "onnx":
        pytest.importorskip("onnxruntime")
    settings, source = {"steps": 1, "sampler": "ddim", "guidance_scale": 2.0}, model(*kind, *SMALL)
    path = export(tmp_path / f"m.{suffix}", source, **settings)
    labels = ["a two", "three of them"] if kind is TEXT else ["2", "3"]
    model = load(source, "cpu")
    cond, other = model.cond(3, labels), model.cond(3, labels[1:])
    inputs = {"z": torch.randn(3, 64, generator=torch.Generator().manual_seed(0)), **cond}
    images, x_0 = ran(path, inputs)
    x_T = model.tdpm.x_T_of(inputs["z"].view(-1, *model.tdpm.prior.z_shape), cond)
    assert torch.equal(model.space.decode(x_0), images)
    assert (images.int() - model.decode(x_T, labels=labels, **settings).int()).abs().max() <= 1
    assert not torch.equal(ran(path, inputs | other)[0], images)


def ran(path, inputs):
    """What the file's own runtime gives."""
    return (Onnx() if path.suffix == ".onnx" else TorchExport()).run(path, inputs)


@pytest.fixture
def onnx_file(model, tmp_path):
    pytest.importorskip("onnxruntime")
    return export(tmp_path / "m.onnx", model(*SMALL), steps=1, rgb=True)


def test_torch_fidelity_scores_the_onnx_file_as_it_is(onnx_file, tmp_path):
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file))
    assert [argument.name for argument in session.get_inputs()] == ["z"]
    about = session.get_modelmeta().custom_metadata_map
    assert (about["preset"], about["z_size"], about["nfe"]) == ("digits", "64", "1 + 1 = 2")
    fidelity = pytest.importorskip("torch_fidelity")
    from torch_fidelity.feature_extractor_base import FeatureExtractorBase

    class Features(FeatureExtractorBase):
        def __init__(self, name, features_list, **kwargs):
            super().__init__(name, features_list)

        @staticmethod
        def get_provided_features_list():
            return ("2048",)

        @staticmethod
        def get_default_feature_layer_for_metric(metric):
            return "2048"

        @staticmethod
        def can_be_compiled():
            return False

        @staticmethod
        def get_dummy_input_for_compile():
            return torch.zeros(1, 3, 8, 8, dtype=torch.uint8)

        def forward(self, x):
            assert (x.dtype, x.shape[1:]) == (torch.uint8, (3, 8, 8))
            return (x.float().flatten(1)[:, :32] / 255,)

    (tmp_path / "real").mkdir()
    for k in range(40):
        pixels = np.random.default_rng(k).integers(0, 256, (8, 8, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "real" / f"{k}.png")
    fidelity.register_feature_extractor("pooled-for-test", Features)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        scores = fidelity.calculate_metrics(
            input1=str(onnx_file), input1_model_z_size=64, input1_model_z_type="normal", input1_model_num_samples=40,
            input2=str(tmp_path / "real"), fid=True, cuda=False, verbose=False, batch_size=16, cache=False,
            feature_extractor="pooled-for-test",
        )  # fmt: skip
    assert scores["frechet_inception_distance"] > 0


def test_points_with_drawn_noise_in_onnx(model, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    path = export(tmp_path / "points.onnx", model(points=True), steps=2, sampler="ddpm")
    session = onnxruntime.InferenceSession(str(path))
    points, x_0 = session.run(None, {"z": np.zeros((7, 2), np.float32), "noise": np.zeros((7, 1, 2), np.float32)})
    assert points.shape == x_0.shape == (7, 2)


PRIORS = {
    "shared": [], "copy": ["prior.name=copy"], "gaussian": ["prior.name=gaussian"],
    "shared-x0": ["prior.name=shared-x0"], "denoised": ["prior.name=denoised", "denoiser.prediction=eps"],
    "denoised, v": ["prior.name=denoised", "prior.prediction=v", "denoiser.prediction=v"], "labels": LABELS,
}  # fmt: skip


@pytest.mark.parametrize("kind", PRIORS)
def test_a_folder_of_diffusers_and_back(model, tmp_path, generator, kind):
    diffusers = pytest.importorskip("diffusers")
    source = model(*PRIORS[kind])
    folder = export(tmp_path / "folder", source, "diffusers", sampler="ddim", spacing=1.0, steps=4)
    assert json.loads((folder / "tdpm.json").read_text())["T"] == "100"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        stock = diffusers.DiffusionPipeline.from_pretrained(folder, trust_remote_code=False)
    assert type(stock.unet) is diffusers.UNet2DModel
    stock.scheduler.set_timesteps(4)
    assert stock.scheduler.timesteps.tolist() == [99, 74, 49, 24]  # ours, 100, 75, 50 and 25, counted from 0

    theirs = load(source, "cpu").config.to_dict()
    # The truncated schedule is a table of betas there, which no schedule of ours matches: only the U-Net is imported.
    plain = {**theirs, "schedule": {**theirs["schedule"], "truncate": {"step": 100}}}
    init = f"diffusers:{folder / 'unet'}"
    components = build.build(config.load_config(preset_of_denoiser(plain, init)))
    load_denoiser(components, init)
    network, ours = components.model.denoiser.network.eval(), load(source, "cpu").tdpm.denoiser.network
    x, t = torch.randn(3, 1, 8, 8, generator=generator), torch.tensor([1, 50, 100])
    cond = {"label": torch.tensor([0, 3, 10])} if kind == "labels" else {}
    with torch.no_grad():
        assert (network(x, t, **cond) - ours(x, t, **cond)).abs().max() < 1e-5


@pytest.mark.parametrize(("name", "module"), [
    ("m.safetensors", None),
    pytest.param("m.pt2", None, marks=pytest.mark.slow),
    pytest.param("m.onnx", "onnxruntime", marks=pytest.mark.slow),
    pytest.param("folder", "diffusers", marks=pytest.mark.slow),
])  # fmt: skip
def test_two_exports_of_a_run_are_byte_equal(runs, tmp_path, name, module):
    if module:
        pytest.importorskip(module)
    contents = []
    for number in range(2):  # each in a process of its own, which orders sets in its own way
        file = tmp_path / str(number) / name
        command = [sys.executable, "-m", "tdpm_cli", "export", str(file), "--model", str(runs["images"])]
        command += ["--steps", "1"] if name != "m.safetensors" else []
        command += ["--format", "diffusers"] if name == "folder" else []
        environment = {**os.environ, "PYTHONHASHSEED": str(number)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        files = [path for path in (file, *sorted(file.rglob("*"))) if path.is_file()]
        contents.append({path.relative_to(tmp_path / str(number)).as_posix(): path.read_bytes() for path in files})
    assert contents[0].keys() == contents[1].keys()
    assert [key for key, content in contents[0].items() if content != contents[1][key]] == []


def test_diffusers_to_ours_to_diffusers_is_bit_for_bit(tmp_path, generator):
    diffusers = pytest.importorskip("diffusers")
    unet = diffusers.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(16, 32), norm_num_groups=4, norm_eps=1e-6,
        layers_per_block=1, down_block_types=("DownBlock2D", "AttnDownBlock2D"), freq_shift=1, flip_sin_to_cos=False,
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), downsample_padding=0, attention_head_dim=None,
    )  # fmt: skip
    unet.save_pretrained(tmp_path / "theirs")
    init = f"diffusers:{tmp_path / 'theirs'}"
    components = build.build(config.load_config(preset_of_denoiser(presets.read_preset("digits"), init)))
    load_denoiser(components, init)
    weights.write_weights(tmp_path / "m.safetensors", components.model, build.header(components.config, "ema-1", 0))
    folder = export(tmp_path / "again", tmp_path / "m.safetensors", "diffusers", sampler="ddim", spacing=1.0)
    again = diffusers.UNet2DModel.from_pretrained(folder, subfolder="unet").state_dict()
    assert again.keys() == unet.state_dict().keys()
    assert all(torch.equal(again[name], tensor) for name, tensor in unet.state_dict().items())


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("m.bin", {}, r"\.bin.*\.safetensors"),
        ("m.onnx", {"format": "coreml"}, "coreml"),
        ("m.safetensors", {"steps": 2}, "safetensors.*--rgb"),
        ("m.onnx", {"steps": 101}, "--steps is 101"),
        ("m.onnx", {"guidance_scale": 2.0}, "--guidance-scale"),
        ("folder", {"format": "diffusers", "steps": 3, "sampler": "ddim", "spacing": 1.0}, "T = 100"),
        ("folder", {"format": "diffusers"}, "--sampler ddim"),
    ],
)
def test_unsupported_exports_are_rejected_and_nothing_is_written(model, tmp_path, name, options, message):
    source = model()
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=message):
        export(tmp_path / name, source, **options)
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize(
    ("assignments", "match"),
    [
        (["backbone.groups=null"], "backbone.groups"),
        (TEXT, "cross-attention"),
        (["backbone.scale_shift=true"], "scale_shift"),
        (["prior.name=stylegan2"], "stylegan2"),
    ],
)
def test_models_without_an_equal_in_diffusers_are_rejected(model, tmp_path, assignments, match):
    with pytest.raises(InputError, match=match):
        export(tmp_path / "folder", model(*assignments), "diffusers", sampler="ddim", spacing=1.0)
    assert not (tmp_path / "folder").exists()


def test_a_model_of_points_is_no_unet(model, tmp_path):
    with pytest.raises(InputError, match="U-Net"):
        export(tmp_path / "folder", model(points=True), "diffusers", sampler="ddim", spacing=1.0)


TARGET = '''"""count: the number of weights as text."""

__all__ = ["Count"]

SUFFIX = ".count"


class Count:
    """A file with one number."""

    def export(self, loaded, file, request):
        """Write the number."""
        count = sum(weight.numel() for weight in loaded.components.model.parameters())
        file.write_text(str(count))
        return f"{count} weights"
'''


def test_one_file_adds_a_target(model, tmp_path):
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets" / "count.py").write_text(TARGET)
    registry.add_folder("export", tmp_path / "targets")
    try:
        source = model(points=True)
        assert int(export(tmp_path / "m.count", source).read_text()) > 0
        assert int(export(tmp_path / "other", source, "count").read_text()) > 0
    finally:
        importlib.import_module("tdpm_cli.export.targets").__path__.remove(str(tmp_path / "targets"))


def test_an_export_that_computes_something_else_is_rejected(model, tmp_path, monkeypatch):
    real = TorchExport.run
    changed = lambda self, path, inputs: tuple(out + 1 for out in real(self, path, inputs))
    monkeypatch.setattr(TorchExport, "run", changed)
    source = model(points=True)
    with pytest.raises(InputError, match=r"not written: .* 1\.0e\+00"):
        export(tmp_path / "m.pt2", source, steps=1)
    assert not list(tmp_path.glob("m*.pt2"))


def test_a_missing_package_is_named(model, tmp_path, monkeypatch):
    import sys

    for name in ("onnx", "diffusers"):
        monkeypatch.setitem(sys.modules, name, None)
    source = model()
    with pytest.raises(InputError, match="onnxruntime"):
        export(tmp_path / "m.onnx", source)
    with pytest.raises(InputError, match="diffusers"):
        export(tmp_path / "folder", source, "diffusers", sampler="ddim", spacing=1.0)


TARGETS = [("m.safetensors", None), ("m.pt2", None), ("m.onnx", None), ("m", "diffusers")]


@pytest.mark.parametrize("full", [False, True])
@pytest.mark.parametrize(("name", "format"), TARGETS)
def test_an_export_writes_its_file_or_nothing(model, tmp_path, name, format, full):
    pytest.importorskip({"m.onnx": "onnxruntime", "m": "diffusers"}.get(name, "torch"))
    source, stem = model(points=format is None), tmp_path / "out"
    stem.mkdir()
    others = {"m.part.onnx", "m.part.pt2", "m.part", f"{name}.part"}
    for other in others:
        (stem / other).mkdir()
        (stem / other / "precious.txt").write_text("precious")
    options = {} if name.endswith("safetensors") else {"steps": 1, "sampler": "ddim", "spacing": 1.0}
    with full_disk(8192) if full else contextlib.nullcontext():
        if full:
            with pytest.raises(InputError, match=name):
                export(stem / name, source, format, **options)
        else:
            export(stem / name, source, format, **options)
    assert {path.name for path in stem.iterdir()} == others | (set() if full else {name})
    assert all((stem / other / "precious.txt").read_text() == "precious" for other in others)
