"""U-Nets of ermongroup/DDIM, which are those of DDPM, from a state dict."""

from functools import partial
from pathlib import Path

from tdpm_cli.convert.external import ImportedModel, Tensors, read_tensors, require
from tdpm_cli.convert.layout import Layout, Position, convert_attention, convert_tensors

__all__ = ["read"]


def _attention(inside: Tensors, theirs: str, heads: int) -> Tensors:
    return convert_attention(
        inside, theirs, {"norm": "norm", "query": "q", "key": "k", "value": "v", "leave": "proj_out"}
    )


def _layer_at(position: Position) -> str:
    if position.role == "block":
        return f"{position.side}.{position.level}.block.{position.k}"
    return f"{position.side}.{position.level}.{position.role}"


LAYOUT = Layout(
    single={"enter": "conv_in", "time.layers.0": "temb.dense.0", "time.layers.2": "temb.dense.1", "norm": "norm_out",
            "leave": "conv_out"},
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    block={"norm_1": "norm1", "conv_1": "conv1", "embed": "temb_proj", "norm_2": "norm2", "conv_2": "conv2",
           "skip": "nin_shortcut"},
    layer_at=_layer_at,
    attention_at=lambda position: f"{position.side}.{position.level}.attn.{position.k}",
    resize_conv={"downsample": "conv", "upsample": "conv"},
    attention=_attention,
)  # fmt: skip


def read(path: Path, height: int) -> ImportedModel:
    """Read a checkpoint of a U-Net for images of that height; infer the sizes from the shapes of its tensors.

    All models of the project predict eps on the linear schedule of 1000 steps.
    """
    tensors = read_tensors(path)
    tensor = partial(require, tensors, where=f"--init: {path}", kind="U-Net of ermongroup/DDIM")
    channels, colours = tensor("conv_in.weight").shape[:2]
    width = lambda level: tensor(f"down.{level}.block.0.conv1.weight").shape[0]
    levels = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("down.")), default=0)
    blocks = sum(name.startswith("down.0.block.") and name.endswith("conv1.weight") for name in tensors)
    backbone = {
        "name": "unet", "channels": channels, "mult": [width(level) // channels for level in range(levels)],
        "blocks": blocks, "groups": 32, "first_time": 0,
        "attention": [height >> level for level in range(levels) if f"down.{level}.attn.0.q.weight" in tensors],
    }  # fmt: skip
    return ImportedModel(
        backbone, colours, lambda unet: convert_tensors(tensors, unet, LAYOUT, f"--init: {path}"),
        schedule={"name": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}, prediction="eps",
        notes=["assuming eps on the linear schedule of 1000 steps, as in all models of ermongroup/DDIM"],
    )  # fmt: skip
