"""diffusers' `UNet2DModel`: its names, its config, and our U-Net in its form. Does not import diffusers."""

import torch

from tdpm_cli.convert.layout import Layout, Position, Tensors, convert_attention, layer_names, positions
from tdpm_cli.models.backbones.unet import CONVENTIONS as OURS
from tdpm_cli.models.backbones.unet import Attention, Block, UNet
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json

PREDICTIONS = {"epsilon": "eps", "sample": "x_0", "v_prediction": "v"}
CONVENTIONS = {(1e-6, 1, 0): "ddpm", (1e-5, 0, 1): "adm"}  # norm_eps, freq_shift, downsample_padding
DEFAULTS: Json = {  # of UNet2DModel, for keys that a config omits
    "norm_eps": 1e-5, "freq_shift": 0, "downsample_padding": 1, "flip_sin_to_cos": True, "norm_num_groups": 32,
    "layers_per_block": 2, "attention_head_dim": 8, "resnet_time_scale_shift": "default", "center_input_sample": False,
    "time_embedding_type": "positional", "act_fn": "silu", "mid_block_scale_factor": 1, "add_attention": True,
    "class_embed_type": None, "num_class_embeds": None, "attn_norm_num_groups": None, "time_embedding_dim": None,
    "downsample_type": "conv", "upsample_type": "conv", "mid_block_type": "UNetMidBlock2D", "dropout": 0.0,
}  # fmt: skip


def _layer_at(position: Position) -> str:
    inside = {"block": f"resnets.{position.k}", "downsample": "downsamplers.0", "upsample": "upsamplers.0"}[
        position.role
    ]
    return f"{position.side}_blocks.{position.rank}.{inside}"


ATTENTION = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "leave": "to_out.0"}
LAYOUT = Layout(
    single={"enter": "conv_in", "time.layers.0": "time_embedding.linear_1", "time.layers.2": "time_embedding.linear_2",
            "label": "class_embedding", "norm": "conv_norm_out", "leave": "conv_out"},
    middle=("mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1"),
    block={"norm_1": "norm1", "conv_1": "conv1", "embed": "time_emb_proj", "norm_2": "norm2", "conv_2": "conv2",
           "skip": "conv_shortcut"},
    layer_at=_layer_at,
    attention_at=lambda position: f"{position.side}_blocks.{position.rank}.attentions.{position.k}",
    resize_conv={"downsample": "conv", "upsample": "conv"},
    attention=lambda inside, theirs, heads: convert_attention(_current_names(inside), theirs, ATTENTION),
)  # fmt: skip
OLD_NAMES = {
    ".query.": ".to_q.",
    ".key.": ".to_k.",
    ".value.": ".to_v.",
    ".proj_attn.": ".to_out.0.",
}  # of diffusers before 0.14


def _current_names(inside: Tensors) -> Tensors:
    current = {}
    for name, tensor in inside.items():
        for old, new in OLD_NAMES.items():
            name = name.replace(old, new)
        current[name] = tensor
    return current


def config_of(unet: UNet, shape: tuple[int, ...]) -> Json:
    """Return the config of the equivalent `UNet2DModel`. Raises InputError if there is none."""
    _check_exportable(unet)
    attentions, groups = _attentions(unet), _groups(unet)
    widths = {layer.query.out_features // layer.heads for layer in attentions}
    layers = list(positions(unet))
    blocks = [position for position in layers if position.side == "down" and position.role == "block"]
    first = [position for position in blocks if position.k == 0]
    of_block = [layer for position in first if isinstance(layer := unet.get_submodule(position.name), Block)]
    eps, shift, padding = next(key for key, name in CONVENTIONS.items() if name == _conventions(unet))
    attends = [position.attends for position in first]
    return DEFAULTS | {
        "_class_name": "UNet2DModel", "sample_size": list(shape[1:]) if shape[1] != shape[2] else shape[1],
        "in_channels": shape[0], "out_channels": shape[0], "layers_per_block": len(blocks) // len(first),
        "block_out_channels": [block.conv_2.out_channels for block in of_block],
        "down_block_types": ["AttnDownBlock2D" if attend else "DownBlock2D" for attend in attends],
        "up_block_types": ["AttnUpBlock2D" if attend else "UpBlock2D" for attend in reversed(attends)],
        "norm_num_groups": groups.pop(), "norm_eps": eps, "freq_shift": shift, "downsample_padding": padding,
        "flip_sin_to_cos": False, "attention_head_dim": None if _single_headed(attentions) else widths.pop(),
        "num_class_embeds": unet.label.num_embeddings if unet.label is not None else None,
        "dropout": of_block[0].dropout.p,
    }  # fmt: skip


def tensors_of(unet: UNet) -> Tensors:
    """Return our tensors under the names of diffusers, for times that count from 0."""
    state, converted = unet.state_dict(), Tensors()
    plain, attentions = layer_names(unet, LAYOUT)
    for ours, theirs in plain.items():
        converted |= {
            f"{theirs}.{end}": state[f"{ours}.{end}"] for end in ("weight", "bias") if f"{ours}.{end}" in state
        }
    for ours, theirs, _ in attentions:
        for end in ("weight", "bias"):
            key, value = state[f"{ours}.key_value.{end}"].chunk(2)
            converted |= {
                f"{theirs}.group_norm.{end}": state[f"{ours}.norm.{end}"],
                f"{theirs}.to_q.{end}": state[f"{ours}.query.{end}"], f"{theirs}.to_k.{end}": key,
                f"{theirs}.to_v.{end}": value, f"{theirs}.to_out.0.{end}": state[f"{ours}.leave.{end}"],
            }  # fmt: skip
    if unet.first_time == 1:
        # sin((s + 1) f) = sin(s f) cos f + cos(s f) sin f, and likewise for cos: given t - 1, the layer embeds t.
        name, f = "time_embedding.linear_1.weight", unet.time.frequencies.double()
        sines, cosines = converted[name].double().chunk(2, 1)
        shifted = [sines * f.cos() - cosines * f.sin(), sines * f.sin() + cosines * f.cos()]
        converted[name] = torch.cat(shifted, 1).to(converted[name].dtype)
    return {name: tensor.contiguous() for name, tensor in converted.items()}


def _check_exportable(unet: UNet) -> None:
    """Raise InputError for a U-Net that `UNet2DModel` cannot express."""
    attentions, groups = _attentions(unet), _groups(unet)
    resizing = [unet.get_submodule(position.name) for position in positions(unet) if position.role != "block"]
    widths = {layer.query.out_features // layer.heads for layer in attentions}
    problems = {
        "scale_shift: UNet2DModel has it only with a norm in the middle attention": any(
            not isinstance(layer, Block) or layer.scale_shift for layer in unet.middle
        ),
        "resample: block: UNet2DModel resizes with convolutions": any(isinstance(layer, Block) for layer in resizing),
        "text to attend to: UNet2DModel has no cross-attention": unet.pooled is not None
        or any(key.startswith("middle.0.attend_context") for key in unet.state_dict()),
        f"norms of {' and '.join(map(str, sorted(groups)))} groups: UNet2DModel has one number of groups "
        "(train with backbone.groups=N)": len(groups) > 1,
        "a number of heads: UNet2DModel has a number of channels for each head (--set backbone.head_channels=N)": (
            not _single_headed(attentions) and len(widths) > 1
        ),
    }
    for problem, applies in problems.items():
        if applies:
            raise InputError(f"--format diffusers: the U-Net has {problem}")


def _attentions(unet: UNet) -> list[Attention]:
    return [layer for layer in unet.modules() if isinstance(layer, Attention)]


def _single_headed(attentions: list[Attention]) -> bool:
    return all(layer.heads == 1 for layer in attentions)


def _groups(unet: UNet) -> set[int]:
    return {layer.num_groups for layer in unet.modules() if isinstance(layer, torch.nn.GroupNorm)}


def _conventions(unet: UNet) -> str:
    return next(name for name, details in OURS.items() if details.eps == unet.norm.eps)
