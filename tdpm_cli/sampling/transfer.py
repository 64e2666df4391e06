"""Copy samples from the device to the host while the device computes the next ones."""

from collections.abc import Iterator

import torch
from torch import Tensor

from tdpm_cli.runtime.console import TaskTimes


def on_host(stream: Iterator[Tensor], times: TaskTimes) -> Iterator[Tensor]:
    """Yield the tensors of a stream on the host. From a GPU, each is copied while the next one is computed."""
    pending: tuple[Tensor, list[torch.cuda.Event]] | None = None
    while True:
        with times.on("network"):
            computed = next(stream, None)  # a GPU only queues the work here
        if computed is not None and not computed.is_cuda:
            yield computed
            continue
        following = None if computed is None else _begin_copy(computed)
        if pending is not None:
            copy, (is_computed, is_copied) = pending
            with times.on("network"):
                is_computed.synchronize()
            with times.on("transfer"):
                is_copied.synchronize()
            yield copy
        if following is None:
            return
        pending = following


def _begin_copy(tensor: Tensor) -> tuple[Tensor, list[torch.cuda.Event]]:
    """Begin a copy to the host; return it, and the events of its beginning and its end."""
    begin, end = torch.cuda.Event(), torch.cuda.Event()
    copy = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
    begin.record()
    copy.copy_(tensor, non_blocking=True)
    end.record()
    return copy, [begin, end]
