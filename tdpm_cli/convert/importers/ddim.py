"""U-Nets of ermongroup/DDIM, which are DDPM's: a state dict, with everything but the head told by shapes."""

from functools import partial
from pathlib import Path

from tdpm_cli.convert.external import Foreign, Tensors, read_tensors, require
from tdpm_cli.convert.layout import Layout, Place, carry, separate

__all__ = ["read"]


def _attention(inside: Tensors, theirs: str, heads: int) -> Tensors:
    return separate(inside, theirs, {"norm": "norm", "query": "q", "key": "k", "value": "v", "leave": "proj_out"})


def _at(place: Place) -> str:
    return {"block": f"{place.side}.{place.level}.block.{place.k}", "half": f"down.{place.level}.downsample",
            "double": f"up.{place.level}.upsample"}[place.role]  # fmt: skip


LAYOUT = Layout(
    single={"enter": "conv_in", "time.layers.0": "temb.dense.0", "time.layers.2": "temb.dense.1", "norm": "norm_out",
            "leave": "conv_out"},
    middle=("mid.block_1", "mid.attn_1", "mid.block_2"),
    block={"norm_1": "norm1", "conv_1": "conv1", "embed": "temb_proj", "norm_2": "norm2", "conv_2": "conv2",
           "skip": "nin_shortcut"},
    at=_at,
    attends_at=lambda place: f"{place.side}.{place.level}.attn.{place.k}",
    resize_conv={"half": "conv", "double": "conv"},
    attention=_attention,
)  # fmt: skip


def read(path: Path, height: int) -> Foreign:
    """A checkpoint of a U-Net for images of that height; eps on the linear chain of 1000 steps, as all of theirs."""
    tensors = read_tensors(path)
    found = partial(require, tensors, where=f"--init: {path}", kind="U-Net of ermongroup/DDIM")
    channels, colours = found("conv_in.weight").shape[:2]
    width = lambda level: found(f"down.{level}.block.0.conv1.weight").shape[0]
    levels = 1 + max((int(name.split(".")[1]) for name in tensors if name.startswith("down.")), default=0)
    blocks = sum(name.startswith("down.0.block.") and name.endswith("conv1.weight") for name in tensors)
    backbone = {
        "name": "unet", "channels": channels, "mult": [width(level) // channels for level in range(levels)],
        "blocks": blocks, "groups": 32, "first_time": 0,
        "attention": [height >> level for level in range(levels) if f"down.{level}.attn.0.q.weight" in tensors],
    }  # fmt: skip
    return Foreign(
        backbone, colours, lambda unet: carry(tensors, unet, LAYOUT, f"--init: {path}"),
        schedule={"name": "linear", "steps": 1000, "beta_start": 1e-4, "beta_end": 0.02}, prediction="eps",
        notes=["taken to predict eps on the linear chain of 1000 steps, as all of ermongroup/DDIM's do"],
    )  # fmt: skip
