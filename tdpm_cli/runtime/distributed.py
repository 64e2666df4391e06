"""Several processes that train, sample or score as one: the only file that knows ranks.

Everything here also works in a process alone, where it costs nothing. The rendezvous is torchrun's: RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT; Gloo carries what lies on CPUs, NCCL what lies on GPUs.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tdpm_cli.runtime import console as report
from tdpm_cli.runtime.errors import InputError

BUCKET = 25 << 20  # bytes of gradients that are averaged together: large enough to be fast, small enough to overlap
TIMEOUT = 600  # seconds that processes wait for one another; TDPM_TIMEOUT sets another
Thing = TypeVar("Thing")


class PeerLost(InputError):
    """Another process ended, or does not answer: what it says of itself matters more than this."""

    status = 75  # EX_TEMPFAIL


@contextmanager
def joined() -> Iterator[None]:
    """Meet the other processes, if the environment says that there are any; only the first one prints.

    Raises InputError for a rendezvous that does not come about, or more processes than devices.
    """
    if dist.is_initialized() or _told("WORLD_SIZE", 1) == 1:
        yield
        return
    _end_with_the_launcher()
    with report.quiet(rank_of_environment() > 0):
        _meet()
        yield
        dist.destroy_process_group()


def rank_of_environment() -> int:
    """What the launcher calls this process."""
    return _told("RANK", 0)


def size() -> int:
    """How many processes there are."""
    return dist.get_world_size() if dist.is_initialized() else 1


def size_here() -> int:
    """How many of them share this machine."""
    return _told("LOCAL_WORLD_SIZE", 1) if dist.is_initialized() else 1


def rank() -> int:
    """Which of them this is, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Whether this is the process that writes files and prints."""
    return rank() == 0


def rows(batch: int) -> range:
    """This process's share of a batch. Raises InputError for one that cannot be shared evenly."""
    if batch % size():
        raise InputError(f"train.batch is {batch}, which {size()} processes cannot share evenly; choose a multiple")
    share = batch // size()
    return range(rank() * share, (rank() + 1) * share)


def own(things: Sequence[Thing]) -> Sequence[Thing]:
    """This process's share of things that are dealt out in turn."""
    return things[rank() :: size()]


def own_here(things: Sequence[Thing]) -> Sequence[Thing]:
    """This process's share of things that are dealt out among those of its machine."""
    return things[_told("LOCAL_RANK", 0) :: size_here()] if dist.is_initialized() else things


def wait() -> None:
    """Until every process has come this far."""
    gathered(None)


def gathered(thing: Thing) -> list[Thing]:
    """What every process holds, by rank."""
    if size() == 1:
        return [thing]
    found: list[Any] = [None] * size()
    with _listening():
        dist.all_gather_object(found, thing)
    return found


def together(things: Iterator[Thing]) -> Iterator[Thing]:
    """The things of all processes, for each of them, in the order in which `own` dealt them out."""
    if size() == 1:
        yield from things
        return
    while True:
        found = gathered([thing] if (thing := next(things, None)) is not None else [])
        if not any(found):
            return
        yield from (each[0] for each in found if each)


def from_first(make: Callable[[], Thing]) -> Thing:
    """What the first process makes, for all."""
    if size() == 1:
        return make()
    found = [make() if is_first() else None]
    with _listening():
        dist.broadcast_object_list(found, src=0)
    return found[0]  # type: ignore[return-value]


def agree(what: str, things: Mapping[str, Any]) -> None:
    """Raise InputError where processes hold different things, with the names of those and what each holds."""
    found = gathered(dict(things))
    for name in sorted({name for each in found for name in each}):
        values = [each.get(name) for each in found]
        if any(value != values[0] for value in values):
            listed = "; ".join(f"process {number} has {value!r}" for number, value in enumerate(values))
            raise InputError(
                f"the processes have different {what}: {name}: {listed}. Start all with the same command and files"
            )


def largest(number: int) -> int:
    """The largest of all processes' numbers."""
    if size() == 1:
        return number
    found = torch.tensor(number)
    with _listening():
        dist.all_reduce(found, dist.ReduceOp.MAX)
    return int(found)


def mean(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The means over processes of numbers that each of them has under the same names."""
    if size() == 1:
        return dict(logs)
    values = torch.stack([value.float() for value in logs.values()])
    with _listening():
        dist.all_reduce(values)
    return dict(zip(logs, values / size(), strict=True))


@contextmanager
def averaged(parameters: Sequence[nn.Parameter], loss: Tensor) -> Iterator[None]:
    """While entered, a backward pass: at the end gradients, and `loss`, are their means over processes.

    Buckets of gradients are sent while earlier layers' are still being computed. DistributedDataParallel does the same,
    yet only for one forward pass through one module, and not for penalties, which are differentiated twice.
    """
    if size() == 1:
        yield
        return
    # Those of sharded weights are averaged as they are made.
    buckets = _Buckets([p for p in parameters if p.requires_grad and not _is_sharded(p)])
    hooks = [p.register_post_accumulate_grad_hook(buckets.ready) for p in buckets.of]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()
    with _listening():
        dist.all_reduce(loss)
    loss /= size()
    buckets.finish()


def shard(network: nn.Module) -> None:
    """Let every process hold a share of a network's weights, and fetch those of a block while it computes (FSDP2).

    Nothing happens in a process alone. Raises InputError where PyTorch is too old for it.
    """
    if size() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh  # takes half a second, and few need it
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise InputError(f"train.shard is true, but PyTorch is {torch.__version__}; install 2.9 or a newer one")
    on_gpu = torch.cuda.is_available()
    mesh = init_device_mesh("cuda" if on_gpu else "cpu", (size(),))
    network.to(memory_format=torch.contiguous_format)  # it takes no others
    stacks = [stack for stack in network.modules() if isinstance(stack, nn.ModuleList)]
    for unit in (*(block for stack in stacks for block in stack), network):
        # The outermost, too: between two steps weights are whole nowhere.
        sharded = fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        if not on_gpu:
            sharded.set_force_sum_reduction_for_comms(True)  # Gloo adds up, and knows no averages


def whole(tensor: Tensor) -> Tensor:
    """A sharded tensor's whole value, which all processes must ask for; any other as it is."""
    found: Tensor = getattr(tensor, "full_tensor", lambda: tensor)()
    return found


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a whole value, which all processes have, into a tensor that may be sharded."""
    if _is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        value = distribute_tensor(value.to(tensor.device), *_placed(tensor))
    tensor.copy_(value)


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")


def _placed(tensor: Any) -> tuple[Any, Any]:
    """On which processes a sharded tensor lies, and how."""
    return tensor.device_mesh, tensor.placements


class _Buckets:
    """Gradients in the order in which a backward pass gives them, roughly: the last layer's first."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buckets: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(parameters):
            if sum(p.numel() * p.element_size() for p in self.buckets[-1]) >= BUCKET:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.of = {p: number for number, bucket in enumerate(self.buckets) for p in bucket}
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[list[Tensor], Tensor, Any]] = []

    def ready(self, parameter: Tensor) -> None:
        """Note a gradient, and send all buckets that are whole, in order: processes must agree on it."""
        self.missing[self.of[parameter]] -= 1  # type: ignore[index]
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self.send()

    def send(self) -> None:
        """Begin to add up the next bucket."""
        gradients = [p.grad for p in self.buckets[len(self.sent)] if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) if gradients else torch.zeros(0)
        with _listening():
            work = dist.all_reduce(flat, async_op=True) if gradients else None
        self.sent.append((gradients, flat, work))

    def finish(self) -> None:
        """Send what is left, of weights that had no part in this pass; wait for all, and take the means."""
        while len(self.sent) < len(self.buckets):
            self.send()
        for gradients, flat, work in self.sent:
            with _listening():
                if work is not None:
                    work.wait()
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(total.view(gradient.shape)).div_(size())


def timeout() -> int:
    """Seconds that processes wait for one another."""
    given = os.environ.get("TDPM_TIMEOUT", str(TIMEOUT))
    if not given.isdigit() or int(given) < 1:
        raise InputError(f"TDPM_TIMEOUT is {given!r}: it must be a number of seconds of at least 1, such as {TIMEOUT}")
    return int(given)


def _told(name: str, otherwise: int) -> int:
    """A number that the launcher left in the environment. Raises InputError for another word."""
    given = os.environ.get(name, str(otherwise))
    if not given.isdigit():
        raise InputError(
            f"{name} is {given!r} in the environment: it must be a number, as torchrun sets it; or unset it"
        )
    return int(given)


def enough_devices(count: int) -> None:
    """Raise InputError for more processes than this machine has devices."""
    gpus, cores = torch.cuda.device_count(), len(os.sched_getaffinity(0))
    has, what = (gpus, "GPUs") if gpus else (cores, "CPU cores")
    if count > has:
        raise InputError(f"--nproc is {count}, but this machine has {has} {what}; accepted: 1 to {has}")


def _meet() -> None:
    seconds, env = timeout(), os.environ
    place = f"{env.get('MASTER_ADDR', '(MASTER_ADDR is not set)')}:{env.get('MASTER_PORT', '(MASTER_PORT is not set)')}"
    if torch.cuda.is_available():
        enough_devices(_told("LOCAL_WORLD_SIZE", 1))
        torch.cuda.set_device(_told("LOCAL_RANK", 0))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except (RuntimeError, ValueError) as error:
        raise InputError(
            f"process {env.get('RANK')} of {env.get('WORLD_SIZE')} did not meet the others at {place} within {seconds} "
            f"s ({str(error).splitlines()[0]}). Start all of them at about the same time, with the same MASTER_ADDR "
            "and MASTER_PORT (or torchrun's --rdzv-endpoint), reachable from every machine; TDPM_TIMEOUT sets how long "
            "they wait"
        ) from None


@contextmanager
def _listening() -> Iterator[None]:
    """Tell apart what another process's end looks like: a connection that breaks, or a silence."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from None


def lost(error: Exception) -> PeerLost | None:
    """What an error among other work means, where it is of a connection: sharded weights are fetched while a network
    computes. None for another error."""
    return _lost(error) if isinstance(error, dist.DistError) or "gloo" in str(error) else None


def _lost(error: Exception) -> PeerLost:
    return PeerLost(
        f"process {rank()} of {size()} lost the others, or waited for them longer than {timeout()} s "
        f"({str(error).splitlines()[0]}); the one that ended first says why"
    )


def _end_with_the_launcher() -> None:
    """Let the kernel tell this process when its launcher has died (Linux)."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG
