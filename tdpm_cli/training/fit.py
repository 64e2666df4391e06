"""A helper network, trained by one loss for so many images, and continued by the same call: no phases, no averages."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.loader import batches
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime.console import Meter
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing
from tdpm_cli.runtime.signals import Interrupted, Interruption

Loss = Callable[[Tensor, RawCondition, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]
SAVES = 20  # times that progress is saved
SHOWN = 50  # steps between values beside the progress bar
TRIED = 8  # examples that are timed to settle on a number format


def fit(
    label: str, network: nn.Module, loss: Loss, data: Any, state: Path, plan: Mapping[str, Any], *,
    images: int, batch: int, lr: float, flip: bool, device: torch.device,
) -> None:  # fmt: skip
    """Train `network` on its device by Adam, whose rate falls linearly to zero, until it saw so many images.

    `loss(raw, given, generator)` returns the mean loss of a batch and what to show. Progress lies in the file `state`,
    which another `plan` may not continue; the caller removes it. A fit goes on in the number format it began in. Raises
    InputError for another plan, and Interrupted once an interrupted fit is saved.
    """
    optimizer = torch.optim.Adam(network.parameters(), lr, fused=True)
    seen, number_format = _restore(state, plan, network, optimizer)
    stream = batches(data, batch, 0, seen, flip=flip, workers=0)
    network.train()
    raw, given = data[range(min(len(data), TRIED))]

    def attempt() -> None:
        loss(raw.to(device), given, torch.Generator(device))[0].backward()

    number_format = number_format or precision.fastest(attempt, device)
    cast = precision.autocast(number_format, device)
    with Meter(label, images, seen) as meter, Interruption() as interrupted:
        while seen < images:
            raw, given = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = lr * (1 - seen / images)
            with cast():
                value, shown = loss(raw.to(device), given, torch.Generator(device).manual_seed(seen))
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()
            before, seen = seen, seen + len(raw)
            show = (seen // batch) % SHOWN == 0 or seen >= images
            meter.advance(len(raw), {key: float(each) for key, each in shown.items()} if show else None)
            if interrupted.number or seen * SAVES // images > before * SAVES // images:
                _save(state, plan, network, optimizer, seen, number_format)
            if interrupted.number and seen < images:
                raise Interrupted(interrupted.number, f"stopped at {seen:,} images; the same command continues")
    network.eval()


def _save(
    state: Path, plan: Mapping[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer, seen: int,
    number_format: Any,
) -> None:  # fmt: skip
    with replacing(state) as part:
        torch.save({"plan": json.dumps(plan), "seen": seen, "precision": number_format, "network": network.state_dict(),
                    "optimizer": optimizer.state_dict()}, part)  # fmt: skip


def _restore(
    state: Path, plan: Mapping[str, Any], network: nn.Module, optimizer: torch.optim.Optimizer
) -> tuple[int, Any]:
    """Images seen so far and the number format; 0 and None at the beginning."""
    if not state.is_file():
        return 0, None
    try:
        saved = torch.load(state, weights_only=True)
        number_format, same = saved["precision"], saved["plan"] == json.dumps(plan)
    except Exception as error:  # a damaged file: each a class of its own
        raise InputError(f"{state}: cannot be read ({error}); remove it to begin again") from None
    if not same:
        raise InputError(f"{state}: it was begun with other data or settings ({saved['plan']}); remove it to begin "
                         "again, or name another output")  # fmt: skip
    network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["seen"]), number_format
