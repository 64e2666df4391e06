"""The training loop, and one step of it."""

from collections.abc import Callable
from contextlib import AbstractContextManager, closing
from pathlib import Path

import torch
from torch import Tensor

from tdpm_cli.config.settings import TrainConfig
from tdpm_cli.config.types import RawCondition
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.data.loader import Order, Supply, batches
from tdpm_cli.engine.batch import Batch, drop_conditions
from tdpm_cli.engine.phase import Machine, train_step
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.signals import Interrupted, Interruption
from tdpm_cli.training.callbacks import Progress, Score, make_callbacks
from tdpm_cli.training.state import TrainerState

UNREADABLE = 255  # above every signal's number: a process could not read its share of a batch


def fit(state: TrainerState, data: Dataset, run: Path, score: Score | None = None) -> None:
    """Train until `train.duration` images were seen. Raises Interrupted once a run that was signalled is saved.

    `score` scores the checkpoints. Raises InputError for data that cannot be read, and for a run that diverged.
    """
    settings = state.settings
    autocast = devices.autocast(settings.precision, state.device)
    order = Order(settings.batch, settings.seed, state.seen, settings.flip)
    stream = batches(data, order, workers=settings.workers, rows=distributed.rows(settings.batch))
    supply, progress = Supply(stream), Progress(seen=state.seen)
    callbacks, bar, saver, log = make_callbacks(state, data, run, supply, score)
    with closing(stream), closing(saver), closing(log), bar, Interruption() as interruption:
        for callback in callbacks:
            callback.begin(progress)
        while state.seen < settings.duration:
            item = supply.next()
            own_signal = UNREADABLE if isinstance(item, InputError) else interruption.number or 0
            progress.signal = distributed.largest(own_signal)
            if progress.signal == UNREADABLE:
                for callback in callbacks:
                    callback.before_data_error(progress)
            if isinstance(item, InputError):
                raise item
            if progress.signal == UNREADABLE:
                raise distributed.PeerLost("another process failed to read its data; see its error")

            progress.before = state.seen
            logs = train_on(state, *item, autocast)
            state.figures.add(state.seen, logs)
            progress.seen, progress.steps = state.seen, progress.steps + 1
            progress.finished = state.seen >= settings.duration
            progress.due = progress.due or progress.passed(settings.snapshot)
            for callback in callbacks:
                callback.after_step(progress)
            if progress.signal and not progress.finished:
                raise Interrupted(
                    progress.signal,
                    f"stopped at {state.seen / 1000:g} kimg and saved in {run}; run the same command to continue",
                )
        for callback in callbacks:
            callback.end(progress)


def train_on(
    state: TrainerState,
    raw: Tensor,
    raw_condition: RawCondition,
    autocast: Callable[[], AbstractContextManager[object]],
) -> dict[str, Tensor]:
    """Run one step on this process's share of a batch: every phase that is due, then the averages. Return the logs.

    All random numbers of a step follow from (seed, images seen), so that no state of a generator needs saving. Dropout
    and the choice of captions differ between processes; dropout alone uses PyTorch's global generator.
    """
    components, settings, where = state.components, state.settings, state.device
    total = len(raw) * distributed.size()
    generator = torch.Generator(where).manual_seed(state.seed(state.seen))
    process_seed = state.seed(state.seen, distributed.rank() + 1)
    torch.manual_seed(process_seed)
    process_generator = torch.Generator(where).manual_seed(process_seed)
    x = components.space.encode(raw.to(where, non_blocking=True), process_generator)
    cond = components.condition.encode({**raw_condition, "raw": raw}, process_generator)
    cond = {key: value.to(where) for key, value in cond.items()}

    state.set_rates()
    batch = Batch(x, cond, generator, first=distributed.rank() * len(x), total=total, seen=state.seen)
    micro_batches = drop_conditions(batch, components.condition).split(settings.batch_gpu or len(x))
    machine = Machine(autocast, distributed.averaged, distributed.full_value)
    try:
        logs = train_step(state.phases, micro_batches, state.step, state.seen, machine)
    except (torch.OutOfMemoryError, RuntimeError) as error:
        size = len(micro_batches[0].x)
        raise _out_of_memory(error, size, settings) or distributed.lost(error) or error from None
    state.seen, state.step = state.seen + total, state.step + 1
    for average in state.averages:
        average.update(components.model, total, state.seen)
    return distributed.mean(logs)


def _out_of_memory(error: Exception, size: int, settings: TrainConfig) -> InputError | None:
    """Return what to try if `error` reports too little memory; None for another error."""
    if not isinstance(error, torch.OutOfMemoryError) and "can't allocate memory" not in str(error):
        return None
    smaller = [n for n in range(size // 2, 1, -1) if settings.batch % n == 0]
    advice = memory_advice(smaller[0] if smaller else None, settings)
    return InputError(f"out of memory with {size} images at a time; try {advice} (--dry-run estimates the memory)")


def memory_advice(batch_gpu: int | None, settings: TrainConfig) -> str:
    """Return which options need less memory; `batch_gpu` is a smaller micro-batch that fits."""
    advice = [f"--batch-gpu {batch_gpu}"] if batch_gpu else []
    advice += [] if settings.gradient_checkpointing else ["--set train.gradient_checkpointing=true"]
    return " or ".join(advice) or "a smaller backbone"
