"""Processes that train, sample or score together. No other file knows ranks.

Everything here also works, at no cost, in a single process. Processes meet as torchrun's do, by RANK, WORLD_SIZE,
LOCAL_RANK, MASTER_ADDR and MASTER_PORT. Gloo transfers tensors on CPUs, NCCL those on GPUs.
"""

import ipaddress
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TYPE_CHECKING, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from tdpm_cli.runtime import console
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.errors import InputError, first_line
from tdpm_cli.runtime.parent import end_with_launcher

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

BUCKET_BYTES = 25 << 20  # of gradients averaged together: large enough to be fast, small enough to overlap
TIMEOUT_SECONDS = 600  # after which a process gives up waiting for the others, unless TDPM_TIMEOUT is set
Thing = TypeVar("Thing")


class PeerLost(InputError):
    """Another process ended or does not answer; its own error is the cause."""

    status = 75  # EX_TEMPFAIL


@contextmanager
def joined() -> Iterator[None]:
    """Join the other processes, if the environment defines any; only the first one prints.

    Raises InputError if they do not meet in time, or if there are more processes than devices.
    """
    if dist.is_initialized() or _from_environment("WORLD_SIZE", 1) == 1:
        yield
        return
    end_with_launcher()
    with console.quiet(rank_of_environment() > 0):
        _meet()
        end_with_launcher(signal.SIGTERM)  # from now on there may be something to save
        yield
        dist.destroy_process_group()


def rank_of_environment() -> int:
    """Return the rank that the launcher gave this process."""
    return _from_environment("RANK", 0)


def size() -> int:
    """Return the number of processes."""
    return dist.get_world_size() if dist.is_initialized() else 1


def size_here() -> int:
    """Return the number of processes on this machine."""
    return _from_environment("LOCAL_WORLD_SIZE", 1) if dist.is_initialized() else 1


def rank() -> int:
    """Return the rank of this process, from 0."""
    return dist.get_rank() if dist.is_initialized() else 0


def is_first() -> bool:
    """Return whether this is the process that writes files and prints."""
    return rank() == 0


def rows(batch: int) -> range:
    """Return this process's rows of a batch. Raises InputError for a batch that cannot be divided evenly."""
    if batch % size():
        raise InputError(f"train.batch is {batch}, which {size()} processes cannot divide evenly; use a multiple")
    share = batch // size()
    return range(rank() * share, (rank() + 1) * share)


def own(things: Sequence[Thing]) -> Sequence[Thing]:
    """Return this process's share of things, every size()-th one."""
    return things[rank() :: size()]


def own_here(things: Sequence[Thing]) -> Sequence[Thing]:
    """Return this process's share of things that the processes of its machine divide."""
    return things[_from_environment("LOCAL_RANK", 0) :: size_here()] if dist.is_initialized() else things


def wait() -> None:
    """Wait until every process has called this."""
    gathered(None)


def gathered(thing: Thing) -> list[Thing]:
    """Return the values of all processes, by rank."""
    if size() == 1:
        return [thing]
    values = [thing] * size()
    with _listening():
        dist.all_gather_object(values, thing)
    return values


def together(things: Iterator[Thing]) -> Iterator[Thing]:
    """Yield the things of all processes, in every process, in the order that `own` divided."""
    if size() == 1:
        yield from things
        return
    while True:
        turn = gathered([thing] if (thing := next(things, None)) is not None else [])
        if not any(turn):
            return
        yield from (share[0] for share in turn if share)


def from_first(make: Callable[[], Thing]) -> Thing:
    """Return, in every process, what `make` returns in the first."""
    if size() == 1:
        return make()
    values = [make() if is_first() else None]
    with _listening():
        dist.broadcast_object_list(values, src=0)
    return cast(Thing, values[0])


def agree(what: str, things: Mapping[str, object]) -> None:
    """Raise InputError, naming the values, unless all processes have the same things under the same names."""
    by_rank = gathered(dict(things))
    for name in sorted({name for things_there in by_rank for name in things_there}):
        values = [things_there.get(name) for things_there in by_rank]
        if any(value != values[0] for value in values):
            listed = "; ".join(f"process {number} has {value!r}" for number, value in enumerate(values))
            raise InputError(
                f"the processes have different {what}: {name}: {listed}. Start all with the same command and files"
            )


def largest(number: int) -> int:
    """Return the largest of all processes' numbers."""
    if size() == 1:
        return number
    maximum = torch.tensor(number)
    with _listening():
        dist.all_reduce(maximum, dist.ReduceOp.MAX)
    return int(maximum)


def mean(logs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the means over processes of values that all have under the same names."""
    if size() == 1:
        return dict(logs)
    values = torch.stack([value.float() for value in logs.values()])
    with _listening():
        dist.all_reduce(values)
    return dict(zip(logs, values / size(), strict=True))


@contextmanager
def averaged(parameters: Sequence[nn.Parameter], loss: Tensor) -> Iterator[None]:
    """A context for a backward pass, at the end of which gradients and `loss` are means over processes.

    Buckets of gradients are sent while those of earlier layers are being computed. DistributedDataParallel does the
    same, but only for one forward pass of one module, and not for penalties, which are differentiated twice.
    """
    if size() == 1:
        yield
        return
    # FSDP averages the gradients of sharded weights.
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
    """Divide a network's weights among processes, which fetch those of a block to compute it (FSDP2).

    Does nothing in a single process. Raises InputError if PyTorch is too old.
    """
    if size() == 1:
        return
    from torch.distributed.device_mesh import init_device_mesh  # takes half a second, and few runs need it
    from torch.distributed.fsdp import FSDPModule, fully_shard

    if not hasattr(FSDPModule, "set_force_sum_reduction_for_comms"):
        raise InputError(f"train.shard is true, but PyTorch is {torch.__version__}; install 2.9 or newer")
    on_gpu = torch.cuda.is_available()
    mesh = init_device_mesh("cuda" if on_gpu else "cpu", (size(),))
    network.to(memory_format=torch.contiguous_format)  # FSDP accepts no other
    stacks = [stack for stack in network.modules() if isinstance(stack, nn.ModuleList)]
    for unit in (*(block for stack in stacks for block in stack), network):
        # The network itself is a unit: between steps no process holds all weights.
        sharded = fully_shard(unit, mesh=mesh, reshard_after_forward=True)
        if not on_gpu:
            sharded.set_force_sum_reduction_for_comms(True)  # Gloo has sums, but no means


def full_value(tensor: Tensor) -> Tensor:
    """Return the full value of a tensor that may be sharded. All processes must call this."""
    return cast("DTensor", tensor).full_tensor() if _is_sharded(tensor) else tensor


def fill(tensor: Tensor, value: Tensor) -> None:
    """Copy a full value, which all processes have, into a tensor that may be sharded."""
    if _is_sharded(tensor):
        from torch.distributed.tensor import distribute_tensor

        sharded = cast("DTensor", tensor)
        value = distribute_tensor(value.to(tensor.device), sharded.device_mesh, sharded.placements)
    tensor.copy_(value)


def _is_sharded(tensor: Tensor) -> bool:
    return hasattr(tensor, "full_tensor")  # DTensor, whose import takes half a second


class _Buckets:
    """Gradients in roughly the order in which a backward pass computes them: the last layer's first."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self.buckets: list[list[nn.Parameter]] = [[]]
        for parameter in reversed(parameters):
            if sum(p.numel() * p.element_size() for p in self.buckets[-1]) >= BUCKET_BYTES:
                self.buckets.append([])
            self.buckets[-1].append(parameter)
        self.of = {p: number for number, bucket in enumerate(self.buckets) for p in bucket}
        self.missing = [len(bucket) for bucket in self.buckets]
        self.sent: list[tuple[list[Tensor], Tensor, dist.Work | None]] = []

    def ready(self, parameter: Tensor) -> None:
        """Count a gradient, and send all complete buckets in order, on which processes must agree."""
        self.missing[self.of[parameter]] -= 1  # type: ignore[index]
        while len(self.sent) < len(self.buckets) and self.missing[len(self.sent)] == 0:
            self.send()

    def send(self) -> None:
        """Start to sum the next bucket over processes."""
        gradients = [p.grad for p in self.buckets[len(self.sent)] if p.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients]) if gradients else torch.zeros(0)
        with _listening():
            work = dist.all_reduce(flat, async_op=True) if gradients else None
        self.sent.append((gradients, flat, work))

    def finish(self) -> None:
        """Send the buckets of weights without a gradient in this pass; wait for all, and compute the means."""
        while len(self.sent) < len(self.buckets):
            self.send()
        for gradients, flat, work in self.sent:
            with _listening():
                if work is not None:
                    work.wait()
            for gradient, total in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
                gradient.copy_(total.view(gradient.shape)).div_(size())


def timeout() -> int:
    """Return the seconds that processes wait for one another."""
    text = os.environ.get("TDPM_TIMEOUT", str(TIMEOUT_SECONDS))
    if not text.isdigit() or int(text) < 1:
        raise InputError(f"TDPM_TIMEOUT is {text!r}: expected a number of seconds from 1, such as {TIMEOUT_SECONDS}")
    return int(text)


def _from_environment(name: str, otherwise: int) -> int:
    """Return a number from an environment variable of the launcher. Raises InputError for anything else."""
    text = os.environ.get(name, str(otherwise))
    if not text.isdigit():
        raise InputError(
            f"{name} is {text!r} in the environment; expected a number, as torchrun sets it. Correct it, or unset it"
        )
    return int(text)


def enough_devices(count: int) -> None:
    """Raise InputError if this machine has fewer devices than processes."""
    gpus = torch.cuda.device_count()
    has, what = (gpus, "GPUs") if gpus else (cores(), "CPU cores")
    if count > has:
        raise InputError(f"--nproc is {count}, but this machine has {has} {what}; accepted: 1 to {has}")


def _meet() -> None:
    seconds, env = timeout(), os.environ
    place = f"{env.get('MASTER_ADDR', '(MASTER_ADDR is not set)')}:{env.get('MASTER_PORT', '(MASTER_PORT is not set)')}"
    if torch.cuda.is_available():
        enough_devices(_from_environment("LOCAL_WORLD_SIZE", 1))
        torch.cuda.set_device(_from_environment("LOCAL_RANK", 0))
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    try:
        if _is_on_this_machine():
            _meet_here(backend, timedelta(seconds=seconds))
        else:
            dist.init_process_group(backend, timeout=timedelta(seconds=seconds))
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(
            f"process {env.get('RANK')} of {env.get('WORLD_SIZE')} did not meet the others at {place} within {seconds} "
            f"s ({first_line(error)}). Start all of them at about the same time, with the same MASTER_ADDR "
            "and MASTER_PORT (or torchrun's --rdzv-endpoint), reachable from every machine; TDPM_TIMEOUT sets how long "
            "they wait"
        ) from None


def _is_on_this_machine() -> bool:
    """Return whether all processes are on this machine and the first one provides the store where they meet."""
    address = os.environ.get("MASTER_ADDR", "")
    with suppress(ValueError):
        address = "localhost" if ipaddress.ip_address(address).is_loopback else address
    of_torchrun = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True"
    return address == "localhost" and os.environ.get("MASTER_PORT", "").isdigit() and not of_torchrun


def _meet_here(backend: str, timeout: timedelta) -> None:
    """Join the other processes of this machine; listen on its loopback interface alone."""
    if sys.platform == "linux":
        for library in ("GLOO", "NCCL"):
            os.environ.setdefault(f"{library}_SOCKET_IFNAME", "lo")
    host, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
    number, count, listener = rank_of_environment(), _from_environment("WORLD_SIZE", 1), None
    if number == 0:  # PyTorch would listen on every interface
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listener = socket.create_server((host, port), family=family, backlog=count).detach()
    store = dist.TCPStore(host, port, count, number == 0, timeout, master_listen_fd=listener)
    dist.init_process_group(backend, store=store, rank=number, world_size=count, timeout=timeout)


@contextmanager
def _listening() -> Iterator[None]:
    """Turn a broken connection or a timeout into PeerLost."""
    try:
        yield
    except RuntimeError as error:
        raise _lost(error) from None


def lost(error: Exception) -> PeerLost | None:
    """Return PeerLost for an error of a connection, which sharded weights raise inside a network; None for others."""
    return _lost(error) if isinstance(error, dist.DistError) or "gloo" in str(error) else None


def _lost(error: Exception) -> PeerLost:
    return PeerLost(
        f"process {rank()} of {size()} lost the connection to the others, or waited longer than {timeout()} s "
        f"({first_line(error)}); see the error of the process that ended first"
    )
