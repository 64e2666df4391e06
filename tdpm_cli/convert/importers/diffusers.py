"""diffusers' `UNet2DModel` and its schedulers' configs, read and written without diffusers."""

import json
from pathlib import Path
from typing import Any

import torch

from tdpm_cli.convert.external import Foreign, Tensors, read_tensors
from tdpm_cli.convert.layout import Layout, Place, carry, names, places, separate
from tdpm_cli.models.backbones.unet import CONVENTIONS as OURS
from tdpm_cli.models.backbones.unet import Attention, Block, UNet
from tdpm_cli.runtime.errors import InputError

__all__ = ["read"]

WEIGHTS = ("diffusion_pytorch_model.safetensors", "diffusion_pytorch_model.bin")
CHAINS = {"linear": "linear", "scaled_linear": "quadratic", "squaredcos_cap_v2": "cosine", "sigmoid": "sigmoid"}
PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
CONVENTIONS = {(1e-6, 1, 0): "ddpm", (1e-5, 0, 1): "adm"}  # norm_eps, freq_shift, downsample_padding
DEFAULTS: dict[str, Any] = {  # of UNet2DModel, for configs that leave them out
    "norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1, "flip_sin_to_cos": True, "norm_num_groups": 32,
    "layers_per_block": 2, "attention_head_dim": 8, "resnet_time_scale_shift": "default", "center_input_sample": False,
    "time_embedding_type": "positional", "act_fn": "silu", "mid_block_scale_factor": 1, "add_attention": True,
    "class_embed_type": None, "num_class_embeds": None, "attn_norm_num_groups": None, "time_embedding_dim": None,
    "downsample_type": "conv", "upsample_type": "conv", "mid_block_type": "UNetMidBlock2D", "dropout": 0.0,
}  # fmt: skip
ONLY: dict[str, list[Any]] = {  # what our U-Net has one way alone
    "center_input_sample": [False], "time_embedding_type": ["positional"], "act_fn": ["silu", "swish"],
    "mid_block_scale_factor": [1], "add_attention": [True], "class_embed_type": [None], "time_embedding_dim": [None],
    "downsample_type": ["conv"], "upsample_type": ["conv"], "mid_block_type": ["UNetMidBlock2D"],
    "resnet_time_scale_shift": ["default"],
}  # fmt: skip


def _at(place: Place) -> str:
    inside = {"block": f"resnets.{place.k}", "half": "downsamplers.0", "double": "upsamplers.0"}[place.role]
    return f"{place.side}_blocks.{place.rank}.{inside}"


ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "leave": "to_out.0"}
LAYOUT = Layout(
    single={"enter": "conv_in", "time.layers.0": "time_embedding.linear_1", "time.layers.2": "time_embedding.linear_2",
            "label": "class_embedding", "norm": "conv_norm_out", "leave": "conv_out"},
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    block={"norm_1": "norm1", "conv_1": "conv1", "embed": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2",
           "skip": "conv_shortcut"},
    at=_at,
    attends_at=lambda place: f"{place.side}_blocks.{place.rank}.attentions.{place.k}",
    resize_conv={"half": "conv", "double": "conv"},
    attention=lambda inside, theirs, heads: separate(_renamed(inside), theirs, ATTENTION),
)  # fmt: skip
OLD = {".query.": ".to_q.", ".key.": ".to_k.", ".value.": ".to_v.", ".proj_attn.": ".to_out.0."}  # before 0.14


def _renamed(inside: Tensors) -> Tensors:
    found = {}
    for name, tensor in inside.items():
        for old, new in OLD.items():
            name = name.replace(old, new)
        found[name] = tensor
    return found


def read(path: Path, height: int) -> Foreign:
    """The U-Net (and the chain, where there is a scheduler) of a pipeline's folder, or a U-Net's own folder."""
    if not path.is_dir():
        raise InputError(f"--init: {path}: no such folder; accepted: what diffusers' save_pretrained wrote")
    folder = path / "unet" if (path / "unet").is_dir() else path
    given = _json(folder / "config.json")
    if (kind := given.get("_class_name", "UNet2DModel")) != "UNet2DModel":
        raise InputError(f"--init: {folder}: it is a {kind}; accepted: UNet2DModel")
    config = DEFAULTS | given
    backbone = _backbone(config, folder, height)
    weights = next((folder / name for name in WEIGHTS if (folder / name).is_file()), folder / WEIGHTS[0])
    tensors, flipped = read_tensors(weights), config["flip_sin_to_cos"]

    def carried(unet: UNet) -> Tensors:
        name = "time_embedding.linear_1.weight"
        if flipped and name in tensors:  # theirs is cosines, then sines
            cosines, sines = tensors[name].chunk(2, 1)
            return carry({**tensors, name: torch.cat([sines, cosines], 1)}, unet, LAYOUT, f"--init: {folder}")
        return carry(tensors, unet, LAYOUT, f"--init: {folder}")

    scheduler = next((p for p in (path / "scheduler", path) if (p / "scheduler_config.json").is_file()), None)
    chain, prediction, notes = (
        None,
        None,
        ["no scheduler beside it: the preset's chain is used, and eps taken as predicted"],
    )
    if scheduler is not None:
        chain, prediction = _chain(_json(scheduler / "scheduler_config.json"), scheduler)
        notes = []
    sample_size = config.get("sample_size")
    size = sample_size if isinstance(sample_size, int) else None
    return Foreign(backbone, int(config.get("in_channels", 3)), carried, chain, prediction or "eps",
                   config["num_class_embeds"], size, notes)  # fmt: skip


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text())
    except OSError:
        raise InputError(f"--init: {path}: missing; accepted: a folder that diffusers' save_pretrained wrote") from None
    except ValueError as error:
        raise InputError(f"--init: {path}: damaged ({error})") from None
    if not isinstance(content, dict):
        raise InputError(f"--init: {path}: damaged (no object)")
    return content


def _backbone(config: dict[str, Any], folder: Path, height: int) -> dict[str, Any]:
    """The keys of our U-Net. Raises InputError, naming key and value, for what ours does not have."""

    def refuse(key: str, accepted: object) -> None:
        raise InputError(f"--init: {folder}: {key} is {config.get(key)!r}; the U-Net here has {accepted}")

    for key, accepted in ONLY.items():
        if config[key] not in accepted:
            refuse(key, " or ".join(map(repr, accepted)))
    down, up = config.get("down_block_types", []), config.get("up_block_types", [])
    if not down or not set(down) <= {"DownBlock2D", "AttnDownBlock2D"}:
        refuse("down_block_types", "DownBlock2D and AttnDownBlock2D")
    attends = [name.startswith("Attn") for name in down]
    if list(up) != ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)]:
        refuse("up_block_types", "those of down_block_types in reverse")
    details = (config["norm_eps"], config["freq_shift"], config["downsample_padding"])
    if details not in CONVENTIONS:
        raise InputError(f"--init: {folder}: norm_eps, freq_shift and downsample_padding are {details}; the U-Net here "
                         f"has {' or '.join(map(str, CONVENTIONS))}")  # fmt: skip
    widths = config["block_out_channels"]
    if any(width % widths[0] for width in widths):
        refuse("block_out_channels", "multiples of the first")
    if config["attn_norm_num_groups"] not in (None, config["norm_num_groups"]):
        refuse("attn_norm_num_groups", "one number of groups")
    if config.get("in_channels", 3) != config.get("out_channels", 3):
        refuse("out_channels", "as many out as in")
    return {
        "name": "unet", "channels": widths[0], "mult": [width // widths[0] for width in widths],
        "blocks": config["layers_per_block"], "dropout": float(config["dropout"]),
        "attention": [height >> level for level, attend in enumerate(attends) if attend],
        "head_channels": config["attention_head_dim"], "conventions": CONVENTIONS[details],
        "groups": config["norm_num_groups"], "first_time": 0,
    }  # fmt: skip


def _chain(config: dict[str, Any], folder: Path) -> tuple[dict[str, Any], str]:
    """Our chain and prediction, from a scheduler's config. Raises InputError for those that have no equal here."""
    prediction = config.get("prediction_type", "epsilon")
    if prediction not in PREDICTIONS:
        raise InputError(f"--init: {folder}: prediction_type is {prediction!r}; accepted: {', '.join(PREDICTIONS)}")
    name, betas = config.get("beta_schedule", "linear"), config.get("trained_betas")
    if name not in CHAINS or betas is not None or config.get("rescale_betas_zero_snr"):
        what = "trained_betas" if betas is not None else f"beta_schedule {name!r}"
        raise InputError(f"--init: {folder}: {what} has no equal among the chains here; accepted: "
                         f"{', '.join(CHAINS)}, without rescale_betas_zero_snr")  # fmt: skip
    chain: dict[str, Any] = {"name": CHAINS[name], "steps": config.get("num_train_timesteps", 1000)}
    if name != "squaredcos_cap_v2":
        chain |= {"beta_start": config.get("beta_start", 1e-4), "beta_end": config.get("beta_end", 0.02)}
    return chain, PREDICTIONS[prediction]


def config_of(unet: UNet, shape: tuple[int, ...]) -> dict[str, Any]:
    """The config of the `UNet2DModel` that computes what `unet` does. Raises InputError where there is none."""

    def refuse(what: str, theirs: str) -> None:
        raise InputError(f"--format diffusers: the U-Net has {what}, but diffusers' UNet2DModel has {theirs}")

    if any(getattr(layer, "scale_shift", False) or not hasattr(layer, "resized") for layer in unet.middle):
        refuse("scale_shift", "it without a norm in the middle attention")
    layers = list(places(unet))
    if any(place.role != "block" and not hasattr(unet.get_submodule(place.ours), "conv") for place in layers):
        refuse("resample: block", "other blocks for that")
    if unet.pooled is not None or any(key.startswith("middle.0.attend_context") for key in unet.state_dict()):
        refuse("a text to attend to", "none")
    groups = {layer.num_groups for layer in unet.modules() if isinstance(layer, torch.nn.GroupNorm)}
    if len(groups) > 1:
        listed = " and ".join(map(str, sorted(groups)))
        refuse(f"norms of {listed} groups", "one number of them (train with backbone.groups=N)")
    attentions = [layer for layer in unet.modules() if isinstance(layer, Attention)]
    single = all(layer.heads == 1 for layer in attentions)
    widths = {layer.query.out_features // layer.heads for layer in attentions}
    if not single and len(widths) > 1:
        refuse("a number of heads", "a number of channels for each (--set backbone.head_channels=N)")
    blocks = [place for place in layers if place.side == "down" and place.role == "block"]
    first = [place for place in blocks if place.k == 0]
    of_block = [layer for place in first if isinstance(layer := unet.get_submodule(place.ours), Block)]
    eps, shift, padding = next(key for key, name in CONVENTIONS.items() if name == _conventions(unet))
    attends = [place.attends for place in first]
    return DEFAULTS | {
        "_class_name": "UNet2DModel", "sample_size": list(shape[1:]) if shape[1] != shape[2] else shape[1],
        "in_channels": shape[0], "out_channels": shape[0], "layers_per_block": len(blocks) // len(first),
        "block_out_channels": [block.conv_2.out_channels for block in of_block],
        "down_block_types": ["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        "up_block_types": ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        "norm_num_groups": groups.pop(), "norm_eps": eps, "freq_shift": shift, "downsample_padding": padding,
        "flip_sin_to_cos": False, "attention_head_dim": None if single else widths.pop(),
        "num_class_embeds": unet.label.num_embeddings if unet.label is not None else None,
        "dropout": of_block[0].dropout.p,
    }  # fmt: skip


def tensors_of(unet: UNet) -> Tensors:
    """Our tensors under their names, with their times, which count from 0."""
    state, found = unet.state_dict(), Tensors()
    plain, attentions = names(unet, LAYOUT)
    for ours, theirs in plain.items():
        found |= {f"{theirs}.{end}": state[f"{ours}.{end}"] for end in ("weight", "bias") if f"{ours}.{end}" in state}
    for ours, theirs, _ in attentions:
        for end in ("weight", "bias"):
            key, value = state[f"{ours}.key_value.{end}"].chunk(2)
            found |= {
                f"{theirs}.group_norm.{end}": state[f"{ours}.norm.{end}"],
                f"{theirs}.to_q.{end}": state[f"{ours}.query.{end}"], f"{theirs}.to_k.{end}": key,
                f"{theirs}.to_v.{end}": value, f"{theirs}.to_out.0.{end}": state[f"{ours}.leave.{end}"],
            }  # fmt: skip
    if unet.first_time == 1:
        # sin((s + 1) f) = sin(s f) cos f + cos(s f) sin f, and so on: told s = t - 1, the turned layer knows t.
        name, f = "time_embedding.linear_1.weight", unet.time.frequencies.double()
        sines, cosines = found[name].double().chunk(2, 1)
        turned = [sines * f.cos() - cosines * f.sin(), sines * f.sin() + cosines * f.cos()]
        found[name] = torch.cat(turned, 1).to(found[name].dtype)
    return {name: tensor.contiguous() for name, tensor in found.items()}


def _conventions(unet: UNet) -> str:
    return next(name for name, details in OURS.items() if details.eps == unet.norm.eps)
