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


@pytest.fixture(autouse=True)
def _own_programs(tmp_path, monkeypatch):
    """No test trusts the programs of another."""
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))


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
    """The size of the batch as a number, which an exporter treats as constant."""

    def forward(self, z: Tensor) -> Tensor:
        return self.leave(self.norm(self.enter(z).view(z.shape[0], 4, 4, 4)).repeat(1, 1, 2, 2))


class Bytes(Program):
    """Finished images, through which nothing learns."""

    def forward(self, z: Tensor) -> Tensor:
        return torch.zeros(z.shape[0], 1, 8, 8, dtype=torch.uint8)


@pytest.fixture
def tdpm(tiny_images, tmp_path, monkeypatch):
    """`tdpm train` of a tiny preset with further arguments, in an empty folder."""

    def train(*arguments):
        import yaml

        monkeypatch.chdir(tmp_path)
        (tmp_path / "small.yaml").write_text(yaml.safe_dump(tiny_images()))
        monkeypatch.setattr(sys, "argv", ["tdpm", "train", "--preset", "small.yaml", *map(str, arguments)])
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
        tiny_images("prior.name=x0-then-noise"), [f"prior.{option}" for option in SMALL] + [*assignments]
    )


@pytest.fixture
def ours(tiny_images, tmp_path):
    """A generator's own file, and the generator."""
    components = build.build(config.load_config(plain_of(tiny_images, "train.seed=5")))
    path = tmp_path / "generator.safetensors"
    weights.write_weights(path, components.model.prior.generator, {})
    return path, components.model.prior.generator


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
    arguments = ["--init", denoiser, "--init-prior", ours[0], "--objective", "prior", "--duration", "16"]
    model, theirs = load(tdpm(*arguments, "--set", "train.prior_lr=1e-12"), "cpu"), load(denoiser, "cpu")
    pairs = zip(model.tdpm.denoiser.parameters(), theirs.tdpm.denoiser.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    assert model.config.prior.name == "x0-then-noise"


def test_a_generator_of_a_run_is_used_at_another_truncation_point(tiny_images, tmp_path):
    first = build.build(config.load_config(plain_of(tiny_images, "schedule.truncate.step=30")))
    path = tmp_path / "model.safetensors"
    weights.write_weights(path, first.model, build.header(first.config, "ema-1", 0))
    second = build.build(config.load_config(generator.preset_of_generator(tiny_images(), str(path))))
    generator.load_generator(second, str(path))
    assert second.model.denoiser.schedule.T == 100
    assert all(map(torch.equal, second.model.prior.parameters(), first.model.prior.parameters()))


def test_a_program_is_trained_saved_continued_and_exported(tdpm, tmp_path, capsys):
    path = saved(tmp_path)
    arguments = ["--init-prior", path, "--set", "prior.z=[16]", "--set", "train.prior_lr=1e-3"]
    tdpm(*arguments, "--dry-run")
    half = tdpm(*arguments, "--duration", "64")
    run = tdpm(*arguments)
    assert half == run
    other = tdpm(*arguments, "--name", "at-once")
    files = [
        checkpoint.list_checkpoints(folder)[-1] / "model.safetensors" for folder in (run, other.parent / "at-once")
    ]
    first, second = (weights.read_weights(file)[0] for file in files)
    assert all(torch.equal(first[name], second[name]) for name in first)
    theirs = programs.read(path).state_dict()
    learned = {name.removeprefix("prior.generator."): tensor for name, tensor in first.items() if "generator" in name}
    assert learned.keys() == theirs.keys()
    assert not torch.equal(learned["enter.weight"], theirs["enter.weight"])
    assert torch.equal(learned["norm.running_mean"], theirs["norm.running_mean"])  # it learns in eval mode

    model = load(run, "cpu")
    averaged = weights.read_weights(checkpoint.newest_weights(run))[0]
    assert torch.equal(model.tdpm.prior.generator.enter.weight, averaged["prior.generator.enter.weight"])
    images = model.sample(3, seed=1)
    assert torch.equal(model.sample(1, seed=1, first=2), images[2:])
    assert (run / "prior.pt").read_bytes() == path.read_bytes()

    capsys.readouterr()
    exported = export(tmp_path / "m.safetensors", run)
    assert torch.equal(load(exported, "cpu").sample(3, seed=1), images)
    assert "note: " in capsys.readouterr().err
    pytest.importorskip("onnxruntime")
    inputs = {"z": torch.randn(2, 16 + 64, generator=torch.Generator().manual_seed(0))}
    graph = TorchExport().run(export(tmp_path / "m.pt2", run, steps=1), inputs)
    assert torch.allclose(graph[1], Onnx().run(export(tmp_path / "m.onnx", run, steps=1), inputs)[1], atol=1e-4)
    with pytest.raises(InputError, match="'torchscript'"):
        export(tmp_path / "folder", run, "diffusers", sampler="ddim", spacing=1.0)


def test_a_program_runs_only_where_it_is_trusted(tdpm, tmp_path):
    path = saved(tmp_path)
    run = tdpm("--init-prior", path, "--set", "prior.z=[16]", "--duration", "16")
    digest = load(run, "cpu").config.prior.options["program"]
    programs.place(digest).unlink()
    with pytest.raises(InputError, match=rf"{digest}"):
        load(run, "cpu")
    programs.place(digest).write_bytes((run / "prior.pt").read_bytes())
    load(run, "cpu")
    programs.place(digest).write_bytes(saved(tmp_path, Bytes).read_bytes())
    with pytest.raises(InputError, match=r"SHA-256"):
        load(run, "cpu")


def test_a_program_that_cannot_be_traced_is_no_graph(tdpm, tmp_path):
    run = tdpm("--init-prior", saved(tmp_path, Read), "--set", "prior.z=[16]", "--duration", "16")
    with pytest.raises(InputError, match="TorchScript"):
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


@pytest.fixture
def unsuitable(ours, tiny_images, tmp_path):
    """A folder of generators, and of files that are none."""
    path, generator = ours
    state = {
        name: tensor.clone(memory_format=torch.contiguous_format)
        for name, tensor in weights.tensors_of(generator).items()
    }

    def variant(name, drop=None, **add):
        save_file({key: tensor for key, tensor in state.items() if key != drop} | add, tmp_path / f"{name}.safetensors")

    variant("no-first-weight", drop="mapping.0.weight")
    variant("no-bias", drop="mapping.1.bias")
    variant("surplus", extra=torch.zeros(1))
    variant("other-shape", **{"blocks.1.conv_1.conv.weight": torch.zeros(5, 5, 1, 1)})
    variant("other-constant", **{"blocks.0.constant": torch.zeros(3)})
    variant("colour", **{f"blocks.{k}.{end}": torch.zeros(3, *state[f"blocks.{k}.{end}"].shape[1:])
                         for k in range(2) for end in ("bias", "to_image.weight")})  # fmt: skip
    components = build.build(config.load_config(tiny_images()))
    weights.write_weights(
        tmp_path / "shared.safetensors", components.model, build.header(components.config, "ema-1", 0)
    )
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "half.safetensors").write_bytes(path.read_bytes()[:100])
    torch.save(state, tmp_path / "state.pt")
    for kind in (Program, Large, Bytes, Noisy):
        saved(tmp_path, kind)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="`torch.jit")
        torch.jit.freeze(programs.read(tmp_path / "Program.pt")).save(str(tmp_path / "frozen.pt"))


LABELS, Z = ["--set", "condition.name=labels", "--set", "condition.classes=10"], ["--set", "prior.z=[16]"]


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["nowhere.pt"], "nowhere.pt"),
        (["hostile.pt"], "hostile.pt: not TorchScript"),
        (["state.pt"], "state.pt: not TorchScript"),
        (["half.safetensors"], "half.safetensors"),
        (["shared.safetensors"], "'shared'"),
        (["no-first-weight.safetensors"], "'mapping.0.weight'"),
        (["no-bias.safetensors"], "mapping.1.bias"),
        (["surplus.safetensors"], "extra"),
        (["other-shape.safetensors"], "blocks.1.conv_1.conv.weight"),
        (["other-constant.safetensors"], "[1]"),
        (["colour.safetensors"], "[3, 8, 8]"),
        (["generator.safetensors", "--set", "prior.latent=7"], "mapping.0.weight"),
        (["generator.safetensors", "--set", "prior.name=copy"], "prior.name is 'copy'"),
        (["generator.safetensors", *LABELS], "label.weight"),
        (["Program.pt"], "prior.z is [512]"),
        (["Program.pt", *Z, *LABELS], "label"),
        (["Large.pt", *Z], "[2, 1, 16, 16]"),
        (["Bytes.pt", *Z], "uint8 [2, 1, 8, 8]"),
        (["Noisy.pt", *Z], "error: "),
        (["frozen.pt", *Z], "frozen"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_an_unsuitable_generator_gets_one_message(unsuitable, tdpm, tmp_path, capsys, arguments, named):
    with pytest.raises(SystemExit) as caught:
        tdpm("--init-prior", *arguments)
    output = capsys.readouterr()
    assert (caught.value.code, named in output.err) == (2, True), output.err
    assert "executed" not in output.out
    assert not (tmp_path / "runs").exists()
