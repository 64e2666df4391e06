"""Trained generators as priors: weights of ours, and programs of TorchScript, which are code."""

import pickle
import sys
import warnings

import pytest
import torch
from helpers import export, scripted
from safetensors.torch import save_file
from torch import Tensor, nn

from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.cli import main
from tdpm_cli.config import presets
from tdpm_cli.config import schema as config
from tdpm_cli.convert import generator
from tdpm_cli.export.targets.onnx import Onnx
from tdpm_cli.export.targets.torch import TorchExport
from tdpm_cli.models import torchscript_programs as programs
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling import build
from tdpm_cli.sampling.model import load

SMALL = ["latent=6", "layers=2", "channel_base=48", "channel_max=5"]


class Program(nn.Module):
    """A generator of 8×8 from 16 numbers."""

    def __init__(self):
        super().__init__()
        self.enter, self.norm, self.leave = nn.Linear(16, 64), nn.BatchNorm2d(4), nn.Conv2d(4, 1, 3, padding=1)

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.enter(z).view(-1, 4, 4, 4))
        return torch.tanh(self.leave(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))


class Labelled(Program):
    """The same, of a class."""

    def forward(self, z: Tensor, label: Tensor) -> Tensor:
        x = self.norm(self.enter(z + label[:, None]).view(-1, 4, 4, 4))
        return torch.tanh(self.leave(x.repeat_interleave(2, 2).repeat_interleave(2, 3)))


class Noisy(Program):
    """The same, with noise of its own."""

    def forward(self, z: Tensor) -> Tensor:
        x = self.norm(self.enter(z + torch.randn_like(z)).view(-1, 4, 4, 4))
        return self.leave(x.repeat_interleave(2, 2).repeat_interleave(2, 3))


class Large(Program):
    """Images twice as large."""

    def forward(self, z: Tensor) -> Tensor:
        return self.leave(self.norm(self.enter(z).view(-1, 4, 4, 4)).repeat(1, 1, 4, 4))


class Read(Program):
    """The batch's size read off as a number, which an exporter takes for the same in every batch."""

    def forward(self, z: Tensor) -> Tensor:
        return self.leave(self.norm(self.enter(z).view(z.shape[0], 4, 4, 4)).repeat(1, 1, 2, 2))


class Bytes(Program):
    """Finished images, through which nothing learns."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.zeros(z.shape[0], 1, 8, 8, dtype=torch.uint8)


@pytest.fixture
def tdpm(tiny_images, tmp_path, monkeypatch):
    """`tdpm train` of a tiny preset with further words, in an empty folder."""

    def train(*words):
        import yaml

        monkeypatch.chdir(tmp_path)
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(tiny_images()))
        monkeypatch.setattr(sys, "argv", ["tdpm", "train", "--preset", "small.yaml", *map(str, words)])
        with pytest.raises(SystemExit) as caught:
            main()
        if caught.value.code:
            raise caught.value
        return tmp_path / "runs" / "small"

    return train


def saved(tmp_path, kind=Program):
    torch.manual_seed(0)
    return scripted(kind().eval(), tmp_path / f"{kind.__name__}.pt")


def plain_of(tiny_images, *assignments):
    return presets.override(
        tiny_images("prior.name=x0-then-noise"), [f"prior.{each}" for each in SMALL] + [*assignments]
    )


@pytest.fixture
def ours(tiny_images, tmp_path):
    """A generator's own file, and the generator."""
    made = build.build(config.load_config(plain_of(tiny_images, "train.seed=5")))
    path = tmp_path / "generator.safetensors"
    weights.write_weights(path, made.model.prior.generator, {})
    return path, made.model.prior.generator


def test_a_generator_of_ours_becomes_the_prior(ours, tdpm):
    path, theirs = ours
    run = tdpm("--init-prior", path, "--duration", "16", "--set", "train.prior_lr=1e-12", "--objective", "prior")
    model = load(run, "cpu")
    assert model.config.prior.options == {"latent": 6, "layers": 2, "channel_base": 40, "channel_max": 5}
    z, eps = torch.randn(3, *theirs.z_shape), torch.randn(3, 1, 8, 8)
    alpha, sigma = model.schedule.alpha(100), model.schedule.sigma(100)
    x_T = model.tdpm.prior(torch.cat([z, eps.flatten(1)], 1))
    assert torch.allclose(x_T, alpha * theirs(z) + sigma * eps, atol=1e-5)


def test_both_halves_begin_from_other_models(ours, tdpm):
    denoiser = tdpm("--duration", "16", "--set", "train.denoiser_lr=1e-12").rename("denoiser")
    words = ["--init", denoiser, "--init-prior", ours[0], "--objective", "prior", "--duration", "16"]
    model, theirs = load(tdpm(*words, "--set", "train.prior_lr=1e-12"), "cpu"), load(denoiser, "cpu")
    pairs = zip(model.tdpm.denoiser.parameters(), theirs.tdpm.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert model.config.prior.name == "x0-then-noise"


def test_a_run_lends_its_generator_to_another_cut(tiny_images, tdpm, tmp_path):
    made = build.build(config.load_config(plain_of(tiny_images, "schedule.truncate.step=30")))
    path = tmp_path / "model.safetensors"
    weights.write_weights(path, made.model, build.header(made.config, "ema-1", 0))
    adopted = config.load_config(generator.preset_of_generator(tiny_images(), str(path)))
    again = build.build(adopted)
    generator.load_generator(again, str(path))
    assert again.model.denoiser.schedule.T == 100
    assert all(map(torch.equal, again.model.prior.parameters(), made.model.prior.parameters()))


def test_a_program_is_trained_saved_continued_and_exported(tdpm, tmp_path, capsys):
    path = saved(tmp_path)
    words = ["--init-prior", path, "--set", "prior.z=[16]", "--set", "train.prior_lr=1e-3"]
    tdpm(*words, "--dry-run")
    half = tdpm(*words, "--duration", "64")
    whole = tdpm(*words)
    assert half == whole
    other = tdpm(*words, "--name", "at-once")
    files = [checkpoint.list_checkpoints(run)[-1] / "model.safetensors" for run in (whole, other.parent / "at-once")]
    first, second = (weights.read_weights(file)[0] for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)
    theirs = programs.read(path).state_dict()
    learned = {name.removeprefix("prior.generator."): tensor for name, tensor in first.items() if "generator" in name}
    assert learned.keys() == theirs.keys()
    assert not torch.equal(learned["enter.weight"], theirs["enter.weight"])
    assert torch.equal(learned["norm.running_mean"], theirs["norm.running_mean"])  # it learns in eval mode

    model = load(whole, "cpu")
    averaged = weights.read_weights(checkpoint.newest_weights(whole))[0]
    assert torch.equal(model.tdpm.prior.generator.enter.weight, averaged["prior.generator.enter.weight"])
    images = model.sample(3, seed=1)
    assert torch.equal(model.sample(1, seed=1, first=2), images[2:])
    assert (whole / "prior.pt").read_bytes() == path.read_bytes()

    capsys.readouterr()
    exported = export(tmp_path / "m.safetensors", whole)
    assert torch.equal(load(exported, "cpu").sample(3, seed=1), images)
    assert "note: " in capsys.readouterr().err
    pytest.importorskip("onnxruntime")
    given = {"z": torch.randn(2, 16 + 64, generator=torch.Generator().manual_seed(0))}
    graph = TorchExport().run(export(tmp_path / "m.pt2", whole, steps=1), given)
    assert torch.allclose(graph[1], Onnx().run(export(tmp_path / "m.onnx", whole, steps=1), given)[1], atol=1e-4)
    with pytest.raises(InputError, match="'torchscript'"):
        export(tmp_path / "folder", whole, "diffusers", sampler="ddim", spacing=1.0)


def test_a_program_runs_only_where_it_is_trusted(tdpm, tmp_path):
    path = saved(tmp_path)
    run = tdpm("--init-prior", path, "--set", "prior.z=[16]", "--duration", "16")
    digest = load(run, "cpu").config.prior.options["program"]
    programs.place(digest).unlink()
    with pytest.raises(InputError, match=rf"{digest}\), which is code.* was not run.*copy"):
        load(run, "cpu")
    programs.place(digest).write_bytes((run / "prior.pt").read_bytes())
    load(run, "cpu")
    programs.place(digest).write_bytes(saved(tmp_path, Bytes).read_bytes())
    with pytest.raises(InputError, match=r"damaged.*SHA-256"):
        load(run, "cpu")


def test_a_program_that_cannot_be_traced_is_no_graph(tdpm, tmp_path):
    run = tdpm("--init-prior", saved(tmp_path, Read), "--set", "prior.z=[16]", "--duration", "16")
    with pytest.raises(InputError, match="TorchScript program"):
        export(tmp_path / "m.pt2", run, steps=1)
    assert not list(tmp_path.glob("m*"))


def test_a_program_sees_the_classes(tdpm, tmp_path):
    labels = ["--set", "condition.name=labels", "--set", "condition.classes=10", "--set", "prior.z=[16]"]
    run = tdpm("--init-prior", saved(tmp_path, Labelled), *labels, "--duration", "16")
    model = load(run, "cpu")
    assert not torch.equal(model.draw_x_T(1, labels=["1"]), model.draw_x_T(1, labels=["2"]))


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


def test_what_does_not_fit_gets_one_message(ours, tdpm, tmp_path, tiny_images, capsys):
    path, theirs = ours
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format) for name, tensor in weights.tensors_of(theirs).items()
    }

    def variant(name, drop=(), **add):
        file = tmp_path / f"{name}.safetensors"
        save_file({key: tensor for key, tensor in state.items() if key not in drop} | add, file)
        return file

    def model(name, *assignments):
        made = build.build(config.load_config(tiny_images(*assignments)))
        weights.write_weights(tmp_path / name, made.model, build.header(made.config, "ema-1", 0))
        return tmp_path / name

    colour = state | {f"blocks.{k}.{end}": torch.zeros(3, *state[f"blocks.{k}.{end}"].shape[1:])
                      for k in range(2) for end in ("bias", "to_image.weight")}  # fmt: skip
    save_file(colour, tmp_path / "colour.safetensors")
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "half.safetensors").write_bytes(path.read_bytes()[:100])
    torch.save(state, tmp_path / "state.pt")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        torch.jit.freeze(programs.read(saved(tmp_path))).save(str(tmp_path / "frozen.pt"))
    program, z = saved(tmp_path), ["--set", "prior.z=[16]"]
    labels = ["--set", "condition.name=labels", "--set", "condition.classes=10"]
    cases = [
        (["nowhere.pt"], "nowhere.pt"),
        (["hostile.pt"], "hostile.pt: not TorchScript"),
        (["state.pt"], "state.pt: not TorchScript"),
        (["half.safetensors"], "half.safetensors"),
        ([model("other.safetensors")], "its prior 'shared'"),
        ([variant("x", drop=["mapping.0.weight"])], "'mapping.0.weight'"),
        ([variant("y", drop=["mapping.1.bias"])], "mapping.1.bias"),
        ([variant("z", extra=torch.zeros(1))], "extra"),
        ([variant("s", **{"blocks.1.conv_1.conv.weight": torch.zeros(5, 5, 1, 1)})], "blocks.1.conv_1.conv.weight"),
        ([variant("w", **{"blocks.0.constant": torch.zeros(3)})], "images of [1]"),
        (["colour.safetensors"], "images of [3, 8, 8]"),
        ([path, "--set", "prior.latent=7"], "mapping.0.weight"),
        ([path, "--set", "prior.name=copy"], "prior.name is 'copy'"),
        ([path, *labels], "label.weight"),
        ([program], "prior.z is [512]"),
        ([program, *z, *labels], "label"),
        ([saved(tmp_path, Large), *z], "[2, 1, 16, 16]"),
        ([saved(tmp_path, Bytes), *z], "uint8 [2, 1, 8, 8]"),
        ([saved(tmp_path, Noisy), *z], "error: "),
        (["frozen.pt", *z], "frozen"),
    ]  # fmt: skip
    for words, message in cases:
        with pytest.raises(SystemExit) as caught:
            tdpm("--init-prior", *words)
        told = capsys.readouterr()
        assert (caught.value.code, message in told.err) == (2, True), (words, told.err)
        assert "executed" not in told.out
        assert not (tmp_path / "runs").exists(), words
