"""Train a helper network, such as an autoencoder, by one loss: without phases, averages and checkpoints."""

import io
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.loader import Order, batches
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime.console import ProgressBar
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing
from tdpm_cli.runtime.signals import Interrupted, Interruption

# (raw, raw_condition, generator) -> the mean loss of a batch, and values to show
Loss = Callable[[Tensor, RawCondition, torch.Generator], tuple[Tensor, Mapping[str, Tensor]]]

SAVES = 20  # times that progress is saved
STEPS_SHOWN = 50  # steps between the values beside the progress bar
TIMED_EXAMPLES = 8  # examples that are timed to choose the number format


@dataclass(frozen=True)
class HelperTask:
    """A network to train, by which loss and for how long."""

    label: str  # of the progress bar
    network: nn.Module
    loss: Loss
    state: Path  # the file of the progress
    plan: Mapping[str, object]  # what defines the task: a state of another plan is rejected
    images: int  # training images
    batch: int
    lr: float
    flip: bool


def train_helper(task: HelperTask, data: Dataset, device: torch.device) -> None:
    """Train by Adam, whose learning rate falls linearly to zero; continue from `task.state` if it exists.

    The caller removes `task.state`. A task continues in the number format that it was begun in. Raises InputError for a
    state of another plan, and Interrupted once an interrupted task is saved.
    """
    network = task.network
    optimizer = torch.optim.Adam(network.parameters(), task.lr, fused=True)
    seen, number_format = _restore(task, optimizer)
    stream = batches(data, Order(task.batch, 0, seen, task.flip), workers=0)
    network.train()
    number_format = number_format or _choose_number_format(task, data, device)
    autocast = devices.autocast(number_format, device)
    with ProgressBar(task.label, task.images, seen) as bar, Interruption() as interruption:
        while seen < task.images:
            raw, raw_condition = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = task.lr * (1 - seen / task.images)
            with autocast():
                loss, values = task.loss(raw.to(device), raw_condition, torch.Generator(device).manual_seed(seen))
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            before, seen = seen, seen + len(raw)
            shows = (seen // task.batch) % STEPS_SHOWN == 0 or seen >= task.images
            bar.advance(len(raw), {key: float(value) for key, value in values.items()} if shows else None)
            if interruption.number or seen * SAVES // task.images > before * SAVES // task.images:
                _save(task, optimizer, seen, number_format)
            if interruption.number and seen < task.images:
                raise Interrupted(
                    interruption.number, f"stopped at {seen:,} images; run the same command to continue"
                )  # fmt: skip
    network.eval()


def _choose_number_format(task: HelperTask, data: Dataset, device: torch.device) -> str:
    """Return the number format in which the loss is fastest."""
    raw, raw_condition = data[range(min(len(data), TIMED_EXAMPLES))]

    def attempt() -> None:
        task.loss(raw.to(device), raw_condition, torch.Generator(device))[0].backward()

    return devices.fastest(attempt, device)


def _save(task: HelperTask, optimizer: torch.optim.Optimizer, seen: int, number_format: str) -> None:
    buffer = io.BytesIO()  # PyTorch's own writer aborts the process if the disk is full
    torch.save({"plan": json.dumps(task.plan), "seen": seen, "precision": number_format,
                "network": task.network.state_dict(), "optimizer": optimizer.state_dict()}, buffer)  # fmt: skip
    with replacing(task.state) as part:
        part.write_bytes(buffer.getbuffer())


def _restore(task: HelperTask, optimizer: torch.optim.Optimizer) -> tuple[int, str | None]:
    """Return the images seen so far and the number format; 0 and None at the beginning."""
    if not task.state.is_file():
        return 0, None
    try:
        saved = torch.load(task.state, weights_only=True)
        number_format, is_same = saved["precision"], saved["plan"] == json.dumps(task.plan)
    except Exception as error:  # a damaged file raises errors of many classes
        raise InputError(f"{task.state}: cannot be read ({error}); remove it to start again") from None
    if not is_same:
        raise InputError(f"{task.state}: it was begun with other data or settings ({saved['plan']}); remove it to "
                         "start again, or name another output")  # fmt: skip
    task.network.load_state_dict(saved["network"])
    optimizer.load_state_dict(saved["optimizer"])
    return int(saved["seen"]), number_format
