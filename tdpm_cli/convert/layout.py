"""Names of the layers of our U-Net in other projects, and conversion of weights by those names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from tdpm_cli.models.backbones.unet import Block, Downsample, UNet, Upsample
from tdpm_cli.runtime.errors import InputError

Tensors = dict[str, Tensor]
Role = Literal["block", "downsample", "upsample"]
MAX_LISTED = 8  # tensors named in a message


@dataclass(frozen=True)
class Position:
    """Where a layer of our U-Net is: the k-th of its `level`; `rank` counts levels in the order of execution."""

    name: str  # ours
    role: Role
    side: Literal["down", "up"]
    level: int
    rank: int
    k: int
    attends: bool = False


@dataclass(frozen=True)
class Layout:
    """Another project's names: of single layers, of the layers in a block, and of the layers at a position.

    `attention` converts the tensors of one attention, whose names begin with a prefix, for a number of heads.
    """

    single: Mapping[str, str]
    middle: tuple[str, str, str]
    block: Mapping[str, str]
    layer_at: Callable[[Position], str]  # a block, or a layer that resizes
    attention_at: Callable[[Position], str]
    resize_conv: Mapping[Role, str]  # the convolution in a layer that resizes, if it has one
    attention: Callable[[Tensors, str, int], Tensors]


def positions(unet: UNet) -> Iterator[Position]:
    """Yield the position of every layer on the way down and up."""
    level = k = 0
    for number, layer in enumerate(unet.down):
        resizes = isinstance(layer, Downsample) or (isinstance(layer, Block) and layer.resized == "half")
        role: Role = "downsample" if resizes else "block"
        yield Position(f"down.{number}", role, "down", level, level, k, _attends(layer))
        level, k = (level + 1, 0) if resizes else (level, k + 1)
    last, k = level, 0
    for number, layer in enumerate(unet.up):
        resizes = isinstance(layer, Upsample) or (isinstance(layer, Block) and layer.resized == "double")
        role = "upsample" if resizes else "block"
        yield Position(f"up.{number}", role, "up", level, last - level, k, _attends(layer))
        level, k = (level - 1, 0) if resizes else (level, k + 1)


def layer_names(unet: UNet, layout: Layout) -> tuple[dict[str, str], list[tuple[str, str, int]]]:
    """Return the other project's name of every plain layer, and (our name, their name, heads) of every attention."""
    plain = {ours: theirs for ours, theirs in layout.single.items() if ours != "label" or unet.label is not None}
    attentions = [("middle.0.attend", layout.middle[1], _heads(unet.middle[0]))]
    blocks = [("middle.0", layout.middle[0]), ("middle.1", layout.middle[2])]
    for position in positions(unet):
        layer, theirs = unet.get_submodule(position.name), layout.layer_at(position)
        if isinstance(layer, Block):
            blocks.append((position.name, theirs))
        else:
            plain[f"{position.name}.conv"] = f"{theirs}.{layout.resize_conv[position.role]}"
        if position.attends:
            attentions.append((f"{position.name}.attend", layout.attention_at(position), _heads(layer)))
    for ours, theirs in blocks:
        has_skip = isinstance(unet.get_submodule(f"{ours}.skip"), nn.Conv2d)
        plain |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in layout.block.items() if a != "skip" or has_skip}
    return plain, attentions


def convert_tensors(tensors: Mapping[str, Tensor], unet: UNet, layout: Layout, source: str) -> Tensors:
    """Return the tensors under our names.

    Raises InputError that names missing and unexpected tensors, and those of another shape.
    """
    remaining, converted, expected = dict(tensors), Tensors(), unet.state_dict()
    missing: list[str] = []

    def pop(name: str) -> Tensor:
        if name not in remaining:
            missing.append(name)
            return torch.empty(0)
        return remaining.pop(name)

    plain, attentions = layer_names(unet, layout)
    for ours, theirs in plain.items():
        for end in ("weight", "bias"):
            if f"{ours}.{end}" in expected:
                converted[f"{ours}.{end}"] = pop(f"{theirs}.{end}")
    for ours, theirs, heads in attentions:
        inside = {name: pop(name) for name in [name for name in remaining if name.startswith(theirs + ".")]}
        try:
            converted |= {f"{ours}.{name}": tensor for name, tensor in layout.attention(inside, theirs, heads).items()}
        except KeyError as error:
            missing.append(str(error).strip("'"))
    if "label.weight" in converted and len(converted["label.weight"]) == len(expected["label.weight"]) - 1:
        # Other projects have no class "nothing". Ours begins at zero, so that it adds nothing.
        converted["label.weight"] = torch.nn.functional.pad(converted["label.weight"], (0, 0, 0, 1))
    misshapen = [
        f"{name} {list(converted[name].shape)} instead of {list(expected[name].shape)}"
        for name in converted
        if len(converted[name]) and converted[name].shape != expected[name].shape
    ]
    problems = {"missing": missing, "unexpected": sorted(remaining), "of another shape": misshapen}
    if any(problems.values()):
        listed = "; ".join(f"{what}: {_listed(names)}" for what, names in problems.items() if names)
        raise InputError(f"{source} does not fit the network: {listed}")
    return converted


def convert_attention(inside: Tensors, theirs: str, names: Mapping[str, str]) -> Tensors:
    """Convert an attention with separate query, key and value, which are linear layers or 1×1 convolutions.

    `names` are the other project's names of its layers by "norm", "query", "key", "value" and "leave".
    """
    converted: Tensors = {}
    for end in ("weight", "bias"):
        layer = {ours: inside[f"{theirs}.{name}.{end}"] for ours, name in names.items()}
        if end == "weight":
            layer = {ours: tensor if ours == "norm" else tensor.flatten(1) for ours, tensor in layer.items()}
        converted[f"norm.{end}"] = layer["norm"]
        converted[f"query.{end}"] = layer["query"]
        converted[f"key_value.{end}"] = torch.cat([layer["key"], layer["value"]])
        converted[f"leave.{end}"] = layer["leave"]
    return converted


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(names[:MAX_LISTED]) + more


def _attends(layer: nn.Module) -> bool:
    return isinstance(layer, Block) and layer.attend is not None


def _heads(layer: nn.Module) -> int:
    assert isinstance(layer, Block)
    assert layer.attend is not None
    return layer.attend.heads
