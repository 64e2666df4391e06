"""U-Nets of OpenAI's guided-diffusion (ADM): a state dict; heads and chain are not told by it."""

from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.convert.external import Foreign, Tensors, read_tensors, require
from tdpm_cli.convert.layout import Layout, Place, carry
from tdpm_cli.models.backbones.unet import UNet

__all__ = ["read"]

HEAD_CHANNELS = 64  # of the published models, with few exceptions


def read(path: Path, height: int, new_order: bool = False) -> Foreign:
    """A checkpoint of a U-Net for images of that height. `new_order` is their --use_new_attention_order."""
    tensors = read_tensors(path)
    found = partial(require, tensors, where=f"--init: {path}", kind="U-Net of guided-diffusion")
    channels, colours = found("input_blocks.0.0.weight").shape[:2]
    notes = [
        "its heads are not in the file: taken to have 64 channels each (--set backbone.head_channels=N)",
        "nor is its chain: the preset's is used (--set schedule.name=cosine is theirs at 64×64)",
    ]
    if found("out.2.weight").shape[0] == 2 * colours:
        tensors = {name: t[:colours] if name.startswith("out.2.") else t for name, t in tensors.items()}
        notes.append("it predicts variances too; they are left out")

    total = 1 + max(int(name.split(".")[1]) for name in tensors if name.startswith("output_blocks."))
    doubling = {name.split(".")[1] for name in tensors if name.startswith("output_blocks.") and _doubles(name)}
    levels = len(doubling) + 1
    blocks = total // levels - 1
    first = [f"input_blocks.{1 + level * (blocks + 1)}" for level in range(levels)]
    attends = [level for level in range(levels) if f"{first[level]}.1.qkv.weight" in tensors]
    widths = [found(f"{name}.0.out_layers.3.weight").shape[0] for name in first]
    told = found(f"{first[0]}.0.emb_layers.1.weight").shape[0]
    backbone = {
        "name": "unet", "channels": channels, "mult": [width // channels for width in widths], "blocks": blocks,
        "attention": [height >> level for level in attends], "head_channels": HEAD_CHANNELS,
        "scale_shift": told == 2 * widths[0], "conventions": "adm", "groups": 32, "first_time": 0,
        "resample": "conv" if any(name.endswith(".op.weight") for name in tensors) else "block",
    }  # fmt: skip
    classes = len(tensors["label_emb.weight"]) if "label_emb.weight" in tensors else None

    def carried(unet: UNet) -> Tensors:
        # Their time is cosines, then sines; ours sines, then cosines.
        cosines, sines = tensors["time_embed.0.weight"].chunk(2, 1)
        ordered = {**tensors, "time_embed.0.weight": torch.cat([sines, cosines], 1)}
        return carry(ordered, unet, _layout(blocks, attends, new_order), f"--init: {path}")

    return Foreign(backbone, colours, carried, prediction="eps", classes=classes, notes=notes)


def _doubles(name: str) -> bool:
    """Whether a tensor of an output block belongs to what doubles: a block or a convolution that is not the first."""
    _, _, place, rest = name.split(".", 3)
    return place != "0" and (rest.startswith(("conv.", "in_layers.")))


def _layout(blocks: int, attends: list[int], new_order: bool) -> Layout:
    def at(place: Place) -> str:
        if place.side == "down":
            return f"input_blocks.{1 + place.level * (blocks + 1) + place.k}.0"
        if place.role == "block":
            return f"output_blocks.{place.rank * (blocks + 1) + place.k}.0"
        return f"output_blocks.{place.rank * (blocks + 1) + blocks}.{2 if place.level in attends else 1}"

    def attention(inside: Tensors, theirs: str, heads: int) -> Tensors:
        found: Tensors = {}
        for end in ("weight", "bias"):
            query, key, value = _apart(inside[f"{theirs}.qkv.{end}"], heads, new_order)
            leave = inside[f"{theirs}.proj_out.{end}"]
            found[f"norm.{end}"] = inside[f"{theirs}.norm.{end}"]
            found[f"query.{end}"], found[f"key_value.{end}"] = query, torch.cat([key, value])
            found[f"leave.{end}"] = leave.flatten(1) if end == "weight" else leave
        return found

    return Layout(
        single={"enter": "input_blocks.0.0", "time.layers.0": "time_embed.0", "time.layers.2": "time_embed.2",
                "label": "label_emb", "norm": "out.0", "leave": "out.2"},
        middle=("middle_block.0", "middle_block.1", "middle_block.2"),
        block={"norm_1": "in_layers.0", "conv_1": "in_layers.2", "embed": "emb_layers.1", "norm_2": "out_layers.0",
               "conv_2": "out_layers.3", "skip": "skip_connection"},
        at=at, attends_at=lambda place: at(place)[:-1] + "1", resize_conv={"half": "op", "double": "conv"},
        attention=attention,
    )  # fmt: skip


def _apart(qkv: Tensor, heads: int, new_order: bool) -> list[Tensor]:
    """Query, key and value of one convolution: each for all heads (`new_order`), or all three for each head in turn."""
    flat = qkv.flatten(1) if qkv.ndim > 1 else qkv
    if new_order:
        return list(flat.chunk(3))
    of_heads = flat.unflatten(0, (heads, 3, -1))
    return [of_heads[:, which].flatten(0, 1) for which in range(3)]
