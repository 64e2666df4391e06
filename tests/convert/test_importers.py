"""Denoisers of other projects compute the same here as in their projects."""

import importlib
import json
import pickle
import random
import zipfile

import pytest
import torch
from safetensors.torch import load_file, save_file

from tdpm_cli.config import presets, registry
from tdpm_cli.config import schema as config
from tdpm_cli.convert.convert import load_denoiser, preset_of_denoiser
from tdpm_cli.convert.source import InitSource, init_source
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build, load_model
from tdpm_cli.training.train import train

diffusers = pytest.importorskip("diffusers")

DDPM = {"norm_eps": 1e-6, "freq_shift": 1, "flip_sin_to_cos": False, "downsample_padding": 0,
        "attention_head_dim": None}  # fmt: skip


def moved(network, generator):
    """The network with every weight moved from its start: their layers, like ours, start at zero."""
    with torch.no_grad():
        for weight in network.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    return network.eval()


def their_unet(seed, **changes):
    """A random config of the family of ddpm-cifar10-32 and ddpm-church-256, or of diffusers' own defaults."""
    choose = random.Random(seed)
    levels = choose.choice([2, 3])
    attends = [choose.random() < 0.5 for _ in range(levels)]
    family = choose.choice([
        DDPM,
        {"norm_eps": 1e-5, "freq_shift": 0, "flip_sin_to_cos": True, "downsample_padding": 1, "attention_head_dim": 8},
    ])  # fmt: skip
    options = {
        "sample_size": 16, "in_channels": 3, "out_channels": 3, "layers_per_block": choose.choice([1, 2]),
        "block_out_channels": tuple(16 * choose.choice([1, 2]) if level else 16 for level in range(levels)),
        "down_block_types": tuple("AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends),
        "up_block_types": tuple("AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)),
        "norm_num_groups": choose.choice([4, 8, 16]), **family, **changes,
    }  # fmt: skip
    return moved(diffusers.UNet2DModel(**options), torch.Generator().manual_seed(seed))


def pipeline(folder, unet, **scheduler):
    diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**scheduler)).save_pretrained(folder)
    return f"diffusers:{folder}"


def plain(*assignments):
    small = ["space.shape=[3, 16, 16]", "prior.name=denoised", "discriminator.channel_base=64", *assignments]
    return presets.override(presets.read_preset("cifar10"), small)


def ours(init, *assignments):
    components = build(config.load_config(presets.override(preset_of_denoiser(plain(*assignments), init), assignments)))
    load_denoiser(components, init)
    return components


@torch.no_grad()
def assert_equal(components, theirs, generator, **cond):
    """The same output at every time, theirs being counted from 0."""
    network = components.model.denoiser.network.eval()
    x, t = torch.randn(4, 3, 16, 16, generator=generator), torch.tensor([1, 2, 77, 1000])
    difference = (network(x, t, **{"label": cond["class_labels"]} if cond else {})
                  - theirs(x, t - 1, **cond).sample).abs().max()  # fmt: skip
    assert float(difference) <= 1e-5


@pytest.mark.parametrize("seed", range(6))
def test_a_unet_of_diffusers_computes_the_same_here(tmp_path, generator, seed):
    unet = their_unet(seed)
    assert_equal(ours(pipeline(tmp_path / "p", unet)), unet, generator)


@pytest.mark.parametrize("layout", ["cifar", "church"])
def test_the_layouts_of_the_published_models(tmp_path, generator, layout):
    """google/ddpm-cifar10-32 and ddpm-church-256, with fewer channels, and with the old names of attention."""
    attends, widths = {"cifar": ([1], (1, 2, 2, 2)), "church": ([4], (1, 1, 2, 2, 4, 4))}[layout]
    kinds = ["AttnDownBlock2D" if k in attends else "DownBlock2D" for k in range(len(widths))]
    size = 16 if layout == "cifar" else 32
    unet = their_unet(
        0, sample_size=size, block_out_channels=tuple(16 * width for width in widths), down_block_types=tuple(kinds),
        up_block_types=tuple(kind.replace("Down", "Up") for kind in reversed(kinds)), layers_per_block=2,
        **DDPM,
        norm_num_groups=8,
    )  # fmt: skip
    components = ours(pipeline(tmp_path / "p", unet), f"space.shape=[3, {size}, {size}]")
    x, t = torch.randn(2, 3, size, size, generator=generator), torch.tensor([3, 500])
    with torch.no_grad():
        difference = (components.model.denoiser.network.eval()(x, t) - unet(x, t - 1).sample).abs().max()
    assert float(difference) <= 1e-5


def test_classes_and_a_unets_own_folder(tmp_path, generator):
    unet = their_unet(1, num_class_embeds=5)
    unet.save_pretrained(tmp_path / "unet-alone")
    components = ours(f"diffusers:{tmp_path / 'unet-alone'}")
    assert components.config.condition.options["classes"] == 5
    assert_equal(components, unet, generator, class_labels=torch.tensor([0, 1, 2, 4]))


@pytest.mark.parametrize("schedule", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid"])
def test_the_schedule_is_theirs(tmp_path, schedule):
    scheduler = {"beta_schedule": schedule, "beta_start": 0.0002, "beta_end": 0.015, "prediction_type": "v_prediction"}
    components = ours(pipeline(tmp_path / "p", their_unet(2), **scheduler), "schedule.truncate.step=400")
    theirs = diffusers.DDPMScheduler(**scheduler).alphas_cumprod
    assert components.model.denoiser.schedule.T == 400
    assert torch.allclose(components.model.denoiser.schedule.alpha_bar[1:].float(), theirs[:400], atol=1e-6)
    assert components.model.denoiser.prediction == "v"


def test_a_checkpoint_of_ddim_is_what_diffusers_converts_it_to(tmp_path, generator):
    """The same weights under both names: diffusers' converted models came from such checkpoints."""
    unet = their_unet(
        3, **DDPM,
        block_out_channels=(32, 64), down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"), layers_per_block=2, norm_num_groups=32,
    )  # fmt: skip
    state = ddim_names(unet.state_dict())
    torch.save(
        [{"step": torch.tensor(1)}, {"module." + name: tensor for name, tensor in state.items()}], tmp_path / "m.ckpt"
    )
    assert_equal(ours(f"ddim:{tmp_path / 'm.ckpt'}"), unet, generator)


def ddim_names(state):
    """diffusers' names to ermongroup's, written independently of the importer."""
    renamed = {}
    for name, tensor in state.items():
        parts = name.split(".")
        inside = {"norm1": "norm1", "norm2": "norm2", "conv1": "conv1", "conv2": "conv2", "time_emb_proj": "temb_proj",
                  "conv_shortcut": "nin_shortcut", "group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v",
                  "to_out": "proj_out"}  # fmt: skip
        end = parts[-1]
        if parts[0] in ("down_blocks", "up_blocks"):
            level = parts[1] if parts[0] == "down_blocks" else str(1 - int(parts[1]))
            side = parts[0].removesuffix("_blocks")
            if parts[2] in ("downsamplers", "upsamplers"):
                new = f"{side}.{level}.{parts[2].removesuffix('rs').removesuffix('e')}e.conv.{end}"
            else:
                kind = {"resnets": "block", "attentions": "attn"}[parts[2]]
                new = f"{side}.{level}.{kind}.{parts[3]}.{inside[parts[4]]}.{end}"
        elif parts[0] == "mid_block":
            place = {"resnets": f"block_{1 + int(parts[2])}", "attentions": "attn_1"}[parts[1]]
            new = f"mid.{place}.{inside[parts[3]]}.{end}"
        else:
            new = {"conv_in": "conv_in", "conv_out": "conv_out", "conv_norm_out": "norm_out"}.get(parts[0])
            new = f"{new}.{end}" if new else f"temb.dense.{int(parts[1][-1]) - 1}.{end}"
        is_conv = any(f".{key}.weight" in f".{new}" for key in ("q", "k", "v", "proj_out"))
        renamed[new] = tensor[:, :, None, None] if is_conv else tensor
    return renamed


def adm_names(unet):
    """Our tensors under guided-diffusion's names (query, key and value of each head in turn), written
    independently of the importer; with an output for variances, which is left out."""
    state, renamed, blocks = unet.state_dict(), {}, 2
    inside = {"norm_1": "in_layers.0", "conv_1": "in_layers.2", "embed": "emb_layers.1", "norm_2": "out_layers.0",
              "conv_2": "out_layers.3", "skip": "skip_connection"}  # fmt: skip

    def put(ours, theirs):
        for name in [name for name in state if name.startswith(ours + ".")]:
            rest = name.removeprefix(ours + ".")
            part, _, end = rest.rpartition(".")
            if not rest.startswith("attend."):
                renamed[f"{theirs}.0.{inside[part]}.{end}"] = state[name]
        if f"{ours}.attend.query.weight" in state:
            put_attention(f"{ours}.attend", f"{theirs}.1", unet.get_submodule(ours).attend.heads)

    def put_attention(ours, theirs, heads):
        for end in ("weight", "bias"):
            query, (key, value) = state[f"{ours}.query.{end}"], state[f"{ours}.key_value.{end}"].chunk(2)
            of_heads = [part.unflatten(0, (heads, -1)) for part in (query, key, value)]
            qkv, leave = torch.cat(of_heads, 1).flatten(0, 1), state[f"{ours}.leave.{end}"]
            renamed[f"{theirs}.qkv.{end}"] = qkv[..., None] if end == "weight" else qkv
            renamed[f"{theirs}.proj_out.{end}"] = leave[..., None] if end == "weight" else leave
            renamed[f"{theirs}.norm.{end}"] = state[f"{ours}.norm.{end}"]

    sines, cosines = state["time.layers.0.weight"].chunk(2, 1)
    renamed["time_embed.0.weight"] = torch.cat([cosines, sines], 1)
    for ours, theirs in {"time.layers.0.bias": "time_embed.0.bias", "time.layers.2.weight": "time_embed.2.weight",
                         "time.layers.2.bias": "time_embed.2.bias", "enter.weight": "input_blocks.0.0.weight",
                         "enter.bias": "input_blocks.0.0.bias", "norm.weight": "out.0.weight",
                         "norm.bias": "out.0.bias"}.items():  # fmt: skip
        renamed[theirs] = state[ours]
    for end in ("weight", "bias"):
        renamed[f"out.2.{end}"] = torch.cat([state[f"leave.{end}"], torch.ones_like(state[f"leave.{end}"])])
    for k in range(len(unet.down)):
        put(f"down.{k}", f"input_blocks.{k + 1}")
    for ours, theirs in (("middle.0", "middle_block"), ("middle.1", "middle_block.2")):
        for name in [name for name in state if name.startswith(ours + ".")]:
            part, _, end = name.removeprefix(ours + ".").rpartition(".")
            if part in inside:
                renamed[f"{theirs}{'.0' if ours == 'middle.0' else ''}.{inside[part]}.{end}"] = state[name]
    put_attention("middle.0.attend", "middle_block.1", unet.middle[0].attend.heads)
    number = 0
    for k, layer in enumerate(unet.up):
        if layer.resized == "double":
            place = f"output_blocks.{number - 1}.{2 if unet.up[k - 1].attend else 1}"
            for name in [name for name in state if name.startswith(f"up.{k}.")]:
                part, _, end = name.removeprefix(f"up.{k}.").rpartition(".")
                renamed[f"{place}.{inside[part]}.{end}"] = state[name]
        else:
            put(f"up.{k}", f"output_blocks.{number}")
            number += 1
    assert number == 3 * (blocks + 1)
    return renamed


ADM = ["backbone.channels=32", "backbone.mult=[1, 2, 2]", "backbone.attention=[8]", "backbone.head_channels=16",
       "backbone.scale_shift=true", "backbone.resample=block", "backbone.conventions=adm", "backbone.groups=32",
       "backbone.first_time=0"]  # fmt: skip


def test_a_checkpoint_of_guided_diffusion(tmp_path, generator):
    network = moved(build(config.load_config(plain(*ADM))).model.denoiser.network, generator)
    torch.save(adm_names(network), tmp_path / "adm.pt")
    components = ours(f"guided-diffusion:{tmp_path / 'adm.pt'}", "backbone.head_channels=16")
    assert components.config.backbone.options == build(config.load_config(plain(*ADM))).config.backbone.options | {
        "dropout": 0.0
    }
    x, t = torch.randn(2, 3, 16, 16, generator=generator), torch.tensor([3, 500])
    with torch.no_grad():
        assert torch.equal(components.model.denoiser.network.eval()(x, t), network(x, t))


@pytest.mark.parametrize("new_order", [False, True])
@pytest.mark.parametrize("attends", [(2,), (1, 4)])
def test_guided_diffusions_own_code_computes_the_same(tmp_path, generator, attends, new_order):
    theirs = pytest.importorskip("guided_diffusion.unet")  # on the index as guided-diffusion-sdk
    unet = theirs.UNetModel(
        image_size=16, in_channels=3, model_channels=32, out_channels=6, num_res_blocks=2, channel_mult=(1, 2, 2),
        attention_resolutions=attends, num_head_channels=16, resblock_updown=not new_order,
        use_scale_shift_norm=not new_order, use_new_attention_order=new_order,
    )  # fmt: skip
    unet = moved(unet, generator)
    torch.save(unet.state_dict(), tmp_path / "adm.pt")
    kind = "guided-diffusion-new-order" if new_order else "guided-diffusion"
    components = ours(f"{kind}:{tmp_path / 'adm.pt'}", "backbone.head_channels=16")
    x, t = torch.randn(4, 3, 16, 16, generator=generator), torch.tensor([1, 2, 77, 1000])
    with torch.no_grad():
        assert (components.model.denoiser.network.eval()(x, t) - unet(x, t - 1)[:, :3]).abs().max() <= 1e-5


class Harmful:
    def __reduce__(self):
        return (print, ("executed",))


@pytest.fixture(scope="module")
def folder_of_unet(tmp_path_factory):
    """A function that saves a pipeline of a U-Net, with changes to its config, its tensors or its scheduler."""
    unet, folder = their_unet(4), tmp_path_factory.mktemp("unet")

    def save(name, edit=None, drop=None, add=None, **scheduler):
        diffusers.DDPMPipeline(unet, diffusers.DDPMScheduler(**scheduler)).save_pretrained(folder / name)
        path = folder / name / "unet" / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | (edit or {})))
        weights = folder / name / "unet" / "diffusion_pytorch_model.safetensors"
        tensors = load_file(weights)
        if drop:
            del tensors[drop]
        save_file(tensors | (add or {}), weights)
        return folder / name

    return save


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"drop": "conv_in.bias"}, "missing: conv_in.bias"),
        ({"add": {"surplus.weight": torch.zeros(2)}}, "unexpected: surplus.weight"),
        ({"add": {"conv_out.bias": torch.zeros(4)}}, r"leave.bias \[4\] instead of \[3\]"),
        ({"edit": {"act_fn": "gelu"}}, "act_fn is 'gelu'.*'silu'"),
        ({"edit": {"_class_name": "UNet2DConditionModel"}}, "UNet2DConditionModel"),
        ({"edit": {"sample_size": 64}}, r"\[3, 64, 64\].*space.shape is \[3, 16, 16\]"),
        ({"trained_betas": [0.1] * 1000}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
    ],
)
def test_models_of_diffusers_without_an_equal_are_rejected(folder_of_unet, change, match):
    with pytest.raises(InputError, match=match):
        ours(f"diffusers:{folder_of_unet('model', **change)}")


@pytest.fixture
def damaged(tmp_path):
    """Files that no importer accepts."""
    (tmp_path / "hostile.pt").write_bytes(pickle.dumps(Harmful()))
    (tmp_path / "half.pt").write_bytes(b"PK\x03\x04 no zip")
    torch.save({"step": 1}, tmp_path / "none.pt")
    torch.save({"a": torch.zeros(1)}, tmp_path / "other.pt")
    save_file({"a": torch.zeros(1)}, tmp_path / "other.safetensors")
    with zipfile.ZipFile(tmp_path / "other.pt") as plain, zipfile.ZipFile(tmp_path / "packed.pt", "w") as packed:
        for entry in plain.namelist():
            packed.writestr(entry, plain.read(entry), zipfile.ZIP_DEFLATED)
    (tmp_path / "empty").mkdir()
    return tmp_path


@pytest.mark.parametrize(
    ("importer", "file", "match"),
    [
        ("", "nowhere", "diffusers:PATH"),
        ("", "other.safetensors", "diffusers:PATH"),
        ("diffusers:", "nowhere", "nowhere"),
        ("diffusers:", "empty", "config.json"),
        ("ddim:", "hostile.pt", "hostile.pt"),
        ("ddim:", "half.pt", "half.pt"),
        ("ddim:", "packed.pt", "compressed"),
        ("ddim:", "none.pt", "none.pt"),
        ("ddim:", "other.pt", "conv_in.weight"),
        ("guided-diffusion:", "other.pt", "input_blocks.0.0.weight"),
    ],
)
def test_files_without_a_model_are_rejected(damaged, importer, file, match, capsys):
    with pytest.raises(InputError, match=match) as caught:
        ours(f"{importer}{damaged / file}")
    assert file in str(caught.value)
    assert "executed" not in capsys.readouterr().out


def test_a_unet_does_not_fit_another_backbone(folder_of_unet):
    components = build(config.load_config("toy-mixture"))
    with pytest.raises(InputError, match=r"backbone\.name"):
        load_denoiser(components, f"diffusers:{folder_of_unet('good')}")


IMPORTER = '''"""half-ddim: models of ermongroup/DDIM whose weights are halved."""

from tdpm_cli.convert.importers.ddim import read as read_ddim

__all__ = ["read"]


def read(path, height):
    """Read a model, and name the importer in a note."""
    model = read_ddim(path, height)
    model.notes.append("halved")
    return model
'''


def test_one_file_adds_an_importer(tmp_path, generator):
    (tmp_path / "half_ddim.py").write_text(IMPORTER)
    registry.add_folder("importer", tmp_path)
    try:
        assert "half-ddim" in registry.names("importer")
        init = f"half-ddim:{tmp_path / 'nowhere.pt'}"
        assert init_source(init) == InitSource("half-ddim", tmp_path / "nowhere.pt")
        with pytest.raises(InputError, match=r"nowhere\.pt"):
            ours(init)
    finally:
        importlib.import_module("tdpm_cli.convert.importers").__path__.remove(str(tmp_path))


def test_a_few_step_model_from_a_baseline(tiny_images, tmp_path):
    """--init RUN --objective prior: the denoiser is the baseline's and stays so; prior and discriminator learn."""
    baseline = train(
        config.load_config(tiny_images("schedule.truncate=null", "prior.name=gaussian")), tmp_path, "baseline"
    )
    few = tiny_images("prior.name=denoised", "train.objective=prior", f"train.init={baseline}", "adversarial.r1=0.1")
    run = train(config.load_config(preset_of_denoiser(few, str(baseline))), tmp_path, "few")
    before, after = load_model(baseline).components.model, load_model(run).components.model
    assert after.denoiser.schedule.T == 100
    same = zip(before.denoiser.network.parameters(), after.denoiser.network.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in same)
    moved = zip(before.denoiser.network.parameters(), after.prior.denoiser.network.parameters(), strict=True)
    assert not all(torch.equal(a, b) for a, b in moved)
    with pytest.raises(InputError, match=r"schedule\.truncate\.step=100"):
        preset_of_denoiser(presets.override(few, ["schedule.truncate.step=500"]), str(run))
    with pytest.raises(InputError, match=r"train\.objective is 'adversarial'.*'shared'"):
        config.load_config(tiny_images("train.objective=prior"))
