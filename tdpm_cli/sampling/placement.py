"""Prepare a model's networks for this machine: choose their number format, and shard them among processes."""

from dataclasses import replace
from functools import partial
from typing import Literal

import torch
from torch import nn

from tdpm_cli.engine.tdpm import TDPM
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.sampling.build import Components
from tdpm_cli.sampling.settings import TIMED_BATCH, timed_batch


def networks(model: TDPM) -> list[nn.Module]:
    """Return the denoiser's network, and the prior's if it is another one of the same class."""
    return [module for module in model.modules() if isinstance(module, type(model.denoiser.network))]


def shard(model: TDPM, device: torch.device) -> None:
    """Shard the weights of denoiser, prior and text encoder among processes, and move the rest to the device.

    The device never holds a complete network.
    """
    for network in (*networks(model), *filter(None, [model.denoiser.text_encoder])):
        distributed.shard(network)
    model.to(device)


def with_precision(components: Components, device: torch.device) -> Components:
    """Return the components with the fastest `train.precision` if it is "auto", by timing a few examples."""
    if components.config.train.precision != "auto":
        devices.check("train.precision", components.config.train.precision, device)
        return components
    work = partial(try_network, components, device, TIMED_BATCH, components.model.denoiser.network)
    fastest: Literal["fp32", "bf16"]
    if components.config.train.shard and device.type == "cuda":  # a network that may exceed the device cannot be timed
        fastest = "bf16" if devices.has_bf16(device) else "fp32"
    else:
        fastest = distributed.from_first(lambda: devices.fastest(work, device))
    return replace(components, config=components.config.replace("train", precision=fastest))


def try_network(components: Components, device: torch.device, size: int, network: nn.Module) -> None:
    """Run one network of the denoiser's class forward and backward on `size` examples of zeros."""
    denoiser = components.model.denoiser
    x, t, null = timed_batch(components, size, device)
    loss = network(x, t, **denoiser.encode_condition(null)).float().square().mean()
    if loss.requires_grad:  # False for a denoiser that is not trained
        loss.backward()
    for module in (network, denoiser):
        module.zero_grad(set_to_none=True)
