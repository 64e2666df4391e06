"""A model's networks on this machine: in which number format they compute, and which process holds which weights."""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import nn

from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components

TRIED = 4  # examples that are timed to settle on a number format


def networks(model: TDPM) -> list[nn.Module]:
    """The denoiser's network, and the prior's where it is another of the same build."""
    return [module for module in model.modules() if isinstance(module, type(model.denoiser.network))]


def shard(model: TDPM, device: torch.device) -> None:
    """Share the weights of a model's networks among processes, and bring the rest to the device: those of the denoiser,
    of the prior of the same build, and of what reads the condition. No network is ever whole on the device."""
    for network in (*networks(model), *filter(None, [model.denoiser.text_encoder])):
        distributed.shard(network)
    model.to(device)


def with_precision(made: Components, device: torch.device) -> Components:
    """The same with `train.precision`, where it is "auto", settled by trying a few examples."""
    if made.config.train.precision != "auto":
        precision.check("train.precision", made.config.train.precision, device)
        return made
    work = partial(try_network, made, device, TRIED, made.model.denoiser.network)
    fastest: Any
    if made.config.train.shard and device.type == "cuda":  # what may not fit on it whole cannot be tried
        fastest = "bf16" if precision.has_bf16(device) else "fp32"
    else:
        fastest = distributed.from_first(lambda: precision.fastest(work, device))
    return replace(made, config=made.config.replace("train", precision=fastest))


def try_network(made: Components, device: torch.device, size: int, network: nn.Module) -> None:
    """One pass of the denoiser's network, or one of its build, forward and back, on `size` blank examples."""
    denoiser = made.model.denoiser
    cond = {key: value.to(device) for key, value in made.condition.null(size).items()}
    t = torch.ones(size, dtype=torch.long, device=device)
    x = torch.zeros((size, *made.space.shape), device=device)
    loss = network(x, t, **denoiser.encode_condition(cond)).float().square().mean()
    if loss.requires_grad:  # not of a denoiser that stays as it is
        loss.backward()
    for module in (network, denoiser):
        module.zero_grad(set_to_none=True)
