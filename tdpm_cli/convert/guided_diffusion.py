"""U-Nets of OpenAI's guided-diffusion (ADM), for its two orders of attention channels.

Their state dicts contain neither the number of heads nor the schedule.
"""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.convert.external import ImportedModel, Tensors, read_tensors, require
from tdpm_cli.convert.layout import Layout, Position, convert_tensors
from tdpm_cli.models.backbones.unet import UNet

HEAD_CHANNELS = 64  # of the published models, with few exceptions


def read_checkpoint(path: Path, height: int, new_order: bool) -> ImportedModel:
    """Read a checkpoint of a U-Net for images of that height. `new_order` is their --use_new_attention_order."""
    tensors = read_tensors(path)
    tensor = partial(require, tensors, where=f"--init: {path}", kind="U-Net of guided-diffusion")
    channels, colours = tensor("input_blocks.0.0.weight").shape[:2]
    notes = [
        f"assuming attention heads of {HEAD_CHANNELS} channels, which the file does not contain "
        "(--set backbone.head_channels=N)",
        "using the preset's schedule, because the file contains none (their models of 64×64 use schedule.name=cosine)",
    ]
    if tensor("out.2.weight").shape[0] == 2 * colours:
        tensors = {name: t[:colours] if name.startswith("out.2.") else t for name, t in tensors.items()}
        notes.append("dropping its prediction of variances")

    total = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("output_blocks."))
    doubling = {name.split(".")[1] for name in tensors if name.startswith("output_blocks.") and _doubles(name)}
    levels = len(doubling) + 1
    blocks = total // levels - 1
    first = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    attends = [level for level in range(levels) if f"{first[level]}.1.qkv.weight" in tensors]
    widths = [tensor(f"{name}.0.out_layers.3.weight").shape[0] for name in first]
    embedded = tensor(f"{first[0]}.0.emb_layers.1.weight").shape[0]
    backbone = {
        "name": "unet", "channels": channels, "mult": [width // channels for width in widths], "blocks": blocks,
        "attention": [height >> level for level in attends], "head_channels": HEAD_CHANNELS,
        "scale_shift": embedded == 2 * widths[0], "conventions": "adm", "groups": 32, "first_time": 0,
        "resample": "conv" if any(name.endswith(".op.weight") for name in tensors) else "block",
    }  # fmt: skip
    classes = len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else None

    def tensors_for(unet: UNet) -> Tensors:
        # Their time embedding is cosines, then sines; ours is sines, then cosines.
        cosines, sines = tensors["time_embed.0.weight"].chunk(2, 1)
        ordered = {**tensors, "time_embed.0.weight": torch.cat([sines, cosines], 1)}
        return convert_tensors(ordered, unet, _layout(blocks, attends, new_order), f"--init: {path}")

    return ImportedModel(backbone, colours, tensors_for, prediction="eps", classes=classes, notes=notes)


def _doubles(name: str) -> bool:
    """Return whether a tensor of an output block belongs to a layer that doubles the size, which is never the first."""
    _, _, number, rest = name.split(".", 3)
    return number != "0" and (rest.startswith(("conv.", "in_layers.")))


def _layout(blocks: int, attends: list[int], new_order: bool) -> Layout:
    def layer_at(position: Position) -> str:
        if position.side == "down":
            return f"input_blocks.{1 + position.level * (blocks + 1) + position.k}.0"
        if position.role == "block":
            return f"output_blocks.{position.rank * (blocks + 1) + position.k}.0"
        return f"output_blocks.{position.rank * (blocks + 1) + blocks}.{2 if position.level in attends else 1}"

    def attention(inside: Tensors, theirs: str, heads: int) -> Tensors:
        converted: Tensors = {}
        for end in ("weight", "bias"):
            query, key, value = _split(inside[f"{theirs}.qkv.{end}"], heads, new_order)
            leave = inside[f"{theirs}.proj_out.{end}"]
            converted[f"norm.{end}"] = inside[f"{theirs}.norm.{end}"]
            converted[f"query.{end}"], converted[f"key_value.{end}"] = query, torch.cat([key, value])
            converted[f"leave.{end}"] = leave.flatten(1) if end == "weight" else leave
        return converted

    return Layout(
        single={"enter": "input_blocks.0.0", "time.layers.0": "time_embed.0", "time.layers.2": "time_embed.2",
                "label": "label_emb", "norm": "out.0", "leave": "out.2"},
        middle=("middle_block.0", "middle_block.1", "middle_block.2"),
        block={"norm_1": "in_layers.0", "conv_1": "in_layers.2", "embed": "emb_layers.1", "norm_2": "out_layers.0",
               "conv_2": "out_layers.3", "skip": "skip_connection"},
        layer_at=layer_at, attention_at=lambda position: layer_at(position)[:-1] + "1",
        resize_conv={"downsample": "op", "upsample": "conv"},
        attention=attention,
    )  # fmt: skip


def _split(qkv: Tensor, heads: int, new_order: bool) -> list[Tensor]:
    """Split one convolution into query, key and value.

    Its channels are ordered by query, key and value (`new_order`), or by head first.
    """
    flat = qkv.flatten(1) if qkv.ndim > 1 else qkv
    if new_order:
        return list(flat.chunk(3))
    of_heads = flat.unflatten(0, (heads, 3, -1))
    return [of_heads[:, which].flatten(0, 1) for which in range(3)]
