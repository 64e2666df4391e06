"""What others call the parts of our U-Net, and weights carried over by those names."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from tdpm_cli.models.backbones.unet import UNet
from tdpm_cli.runtime.errors import InputError

Tensors = dict[str, Tensor]
Role = Literal["block", "half", "double"]


@dataclass(frozen=True)
class Place:
    """Where a layer of ours stands: the k-th of the `level`; `rank` counts levels in the order they are run."""

    ours: str
    role: Role
    side: Literal["down", "up"]
    level: int
    rank: int
    k: int
    attends: bool = False


@dataclass(frozen=True)
class Layout:
    """Names: of single layers, of what a block is made of, and of the layers at a place.

    `attention` turns one of their attentions, by its prefix, into the tensors of ours.
    """

    single: Mapping[str, str]
    middle: tuple[str, str, str]
    block: Mapping[str, str]
    at: Callable[[Place], str]  # a block, or what halves and doubles
    attends_at: Callable[[Place], str]
    resize_conv: Mapping[Role, str]  # the convolution in what halves and doubles, where it is one
    attention: Callable[[Tensors, str, int], Tensors]


def places(unet: UNet) -> Iterator[Place]:
    """Every layer of ours on the way down and up."""
    level = k = 0
    for number, layer in enumerate(unet.down):
        halves = getattr(layer, "resized", "half") == "half"
        yield Place(f"down.{number}", "half" if halves else "block", "down", level, level, k, _attends(layer))
        level, k = (level + 1, 0) if halves else (level, k + 1)
    last, k = level, 0
    for number, layer in enumerate(unet.up):
        doubles = getattr(layer, "resized", "double") == "double"
        role: Role = "double" if doubles else "block"
        yield Place(f"up.{number}", role, "up", level, last - level, k, _attends(layer))
        level, k = (level - 1, 0) if doubles else (level, k + 1)


def names(unet: UNet, layout: Layout) -> tuple[dict[str, str], list[tuple[str, str, int]]]:
    """Of every plain layer, ours to theirs; and of every attention (ours, theirs, heads)."""
    plain = {ours: theirs for ours, theirs in layout.single.items() if ours != "label" or unet.label is not None}
    attentions = [("middle.0.attend", layout.middle[1], _heads(unet.middle[0]))]
    blocks = [("middle.0", layout.middle[0]), ("middle.1", layout.middle[2])]
    for place in places(unet):
        layer, theirs = unet.get_submodule(place.ours), layout.at(place)
        if hasattr(layer, "conv"):
            plain[f"{place.ours}.conv"] = f"{theirs}.{layout.resize_conv[place.role]}"
        else:
            blocks.append((place.ours, theirs))
        if place.attends:
            attentions.append((f"{place.ours}.attend", layout.attends_at(place), _heads(layer)))
    for ours, theirs in blocks:
        has_skip = hasattr(unet.get_submodule(f"{ours}.skip"), "weight")
        plain |= {f"{ours}.{a}": f"{theirs}.{b}" for a, b in layout.block.items() if a != "skip" or has_skip}
    return plain, attentions


def carry(tensors: Mapping[str, Tensor], unet: UNet, layout: Layout, source: str) -> Tensors:
    """Our tensors from theirs. Raises InputError that lists the missing, the left over and the misshapen by name."""
    left, ours, wanted = dict(tensors), Tensors(), unet.state_dict()
    missing: list[str] = []

    def take(name: str) -> Tensor:
        if name not in left:
            missing.append(name)
            return torch.empty(0)
        return left.pop(name)

    plain, attentions = names(unet, layout)
    for mine, theirs in plain.items():
        for end in ("weight", "bias"):
            if f"{mine}.{end}" in wanted:
                ours[f"{mine}.{end}"] = take(f"{theirs}.{end}")
    for mine, theirs, heads in attentions:
        inside = {name: take(name) for name in [name for name in left if name.startswith(theirs + ".")]}
        try:
            ours |= {f"{mine}.{name}": tensor for name, tensor in layout.attention(inside, theirs, heads).items()}
        except KeyError as error:
            missing.append(str(error).strip("'"))
    if "label.weight" in ours and len(ours["label.weight"]) == len(wanted["label.weight"]) - 1:
        # Theirs know no class "nothing"; ours does, and it begins as one that adds nothing.
        ours["label.weight"] = torch.nn.functional.pad(ours["label.weight"], (0, 0, 0, 1))
    misshapen = [f"{name}: {list(ours[name].shape)} there, {list(wanted[name].shape)} here"
                 for name in ours if len(ours[name]) and ours[name].shape != wanted[name].shape]  # fmt: skip
    told = {"lacks": missing, "has, and the network does not,": sorted(left), "has in other shapes": misshapen}
    if any(told.values()):
        raise InputError(f"{source} does not fit the network: " + "; ".join(
            f"it {what} {', '.join(which[:8])}{f' and {len(which) - 8} more' if len(which) > 8 else ''}"
            for what, which in told.items() if which))  # fmt: skip
    return ours


def separate(inside: Tensors, theirs: str, named: Mapping[str, str]) -> Tensors:
    """An attention whose query, key and value are apart, as linear layers or as convolutions of 1×1."""
    flat = lambda name: inside[f"{theirs}.{name}"].flatten(1) if name.endswith("weight") else inside[f"{theirs}.{name}"]
    found: Tensors = {}
    for end in ("weight", "bias"):
        found[f"norm.{end}"] = inside[f"{theirs}.{named['norm']}.{end}"]
        found[f"query.{end}"] = flat(f"{named['query']}.{end}")
        found[f"key_value.{end}"] = torch.cat([flat(f"{named['key']}.{end}"), flat(f"{named['value']}.{end}")])
        found[f"leave.{end}"] = flat(f"{named['leave']}.{end}")
    return found


def _attends(layer: object) -> bool:
    return getattr(layer, "attend", None) is not None


def _heads(layer: object) -> int:
    return int(layer.attend.heads)  # type: ignore[attr-defined]
