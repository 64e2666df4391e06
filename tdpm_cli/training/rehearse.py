"""The reports of `--dry-run` and `--profile`: a few real steps, measured."""

import time
from pathlib import Path

from tdpm_cli.config.schema import Config
from tdpm_cli.data.dataset import Dataset
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import print_line, summary_table, table
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.sampling.information import eigenvalues_of
from tdpm_cli.training import profiling
from tdpm_cli.training.cost import Cost, cost_of
from tdpm_cli.training.stages import stages_of
from tdpm_cli.training.state import TrainerState
from tdpm_cli.training.trainer import memory_advice, train_on

SLOW_STEP = 1.0  # seconds: a first step that takes longer counts, though it warms up
MEASURED_TIME = 10.0  # seconds, about, that all measured steps may take
FIRST_BATCH = 4  # images of the first step
GIB, MIB = 2**30, 2**20


def report_cost(state: TrainerState, data: Dataset) -> None:
    """Print what the run would cost, and how fast a few steps are on this machine."""
    settings = state.settings
    cost, size = cost_of(state.components.config), settings.batch_gpu or settings.batch
    stages, speeds = stages_of(settings), stage_speeds(state, data)
    times = [(stage.stop - stage.start) / speed for stage, speed in zip(stages, speeds, strict=True)]
    of_stages = {
        f"stage {stage.number + 1}": f"{stage.objective}: {speed:.3g} images a second, {_duration(seconds)}"
        for stage, speed, seconds in zip(stages, speeds, times, strict=True)
    }
    free, total = free_memory(state.device), cost.memory(size)
    advice = "" if total <= free else f": too little; try {_smaller_batch(state, cost, free)}"
    schedule = state.components.model.denoiser.schedule
    nats = schedule.nats(schedule.T, eigenvalues_of(data, state.components.space))
    rows = {
        "truncation": f"{schedule.describe()}; it asks {nats:.3g} nats of the prior",
        "parameters": f"{cost.model / 1e6:.4g} M, discriminator {cost.discriminator / 1e6:.4g} M",
        "compute": f"{cost.call_flops / 1e9:.4g} GFLOP a network call, "
        f"{cost.step_flops / 1e9:.4g} GFLOP for each image of training",
        "memory": f"at most about {total / GIB:.3g} GiB: {cost.state_bytes / GIB:.3g} for weights, averages and "
        f"optimizers, and {cost.activation_bytes / MIB:.4g} MiB for each of {size} images at a time",
        "free here": f"{free / GIB:.3g} GiB{advice}",
        "speed here": f"{settings.duration / sum(times):.3g} images a second on {state.device}, {settings.precision}",
        **(of_stages if len(stages) > 1 else {}),
        "time here": f"{_duration(sum(times))} for {settings.duration / 1000:g} kimg",
    }
    summary_table("cost", rows)


def stage_speeds(state: TrainerState, data: Dataset) -> list[float]:
    """Return images a second in each stage of training, measured by real steps, which change the weights."""
    adversarial_start = state.components.config.adversarial.start
    return [_measure_speed(state, data, stage.start + adversarial_start) for stage in stages_of(state.settings)]


def _measure_speed(state: TrainerState, data: Dataset, seen: int) -> float:
    """Return images a second over a few real steps after `seen` images; slow machines get smaller batches.

    The first step warms up, and counts only if it takes more than `SLOW_STEP` seconds.
    """
    settings = state.settings
    autocast = devices.autocast(settings.precision, state.device)
    full = settings.batch // distributed.size()
    size = min(settings.batch_gpu or full, FIRST_BATCH)
    spent, count = 0.0, 0
    while True:
        state.seen, state.step = seen, 1  # a step without the lazy penalty, as most are
        raw, raw_condition = data[[k % len(data) for k in range(size)]]
        begin = time.perf_counter()
        train_on(state, raw, raw_condition, autocast)
        devices.synchronise(state.device)
        seconds = distributed.from_first(lambda begin=begin: time.perf_counter() - begin)  # type: ignore[misc]
        if seconds > SLOW_STEP or size == full:
            spent, count = spent + seconds, count + size
        if spent > MEASURED_TIME or count >= 8 * size:
            return count * distributed.size() / spent
        if seconds < SLOW_STEP:
            size = full


def report_profile(state: TrainerState, data: Dataset, trace: Path) -> None:
    """Print where the time of a step goes, and write a Chrome trace to `trace`."""
    settings, config = state.settings, state.components.config
    raw, raw_condition = data[[k % len(data) for k in range(settings.batch // distributed.size())]]
    autocast = devices.autocast(settings.precision, state.device)

    def step() -> None:
        state.step = 1  # a step without the lazy penalty, as most are
        train_on(state, raw, raw_condition, autocast)

    result = profiling.profile(step, state.device, trace if distributed.is_first() else None)
    table("where the time goes", result.rows)
    peak = profiling.matrix_peak(settings.precision, state.device)
    flops, number_format = _useful_flops(config) * len(raw), devices.describe(settings.precision, state.device)
    rows = {
        "step": f"{result.seconds:.4g} s, {len(raw) / result.seconds:.4g} images a second"
        + (" in each process" if distributed.size() > 1 else ""),
        "compute": f"{flops / 1e9:.4g} GFLOP a step, {flops / result.seconds / 1e9:.4g} GFLOP/s",
        "matrix peak": f"{peak / 1e9:.4g} GFLOP/s in {number_format}, measured now",
        "MFU": f"{flops / result.seconds / peak:.1%} of that peak",
    }
    summary_table("profile", rows)
    print_line(f"trace: {trace}, for chrome://tracing or ui.perfetto.dev\nnext: the same command without --profile")


def _useful_flops(config: Config) -> int:
    """Count the operations of a step for one image, without lazy penalties and recomputed activations."""
    config = config.replace("adversarial", r1=0.0, r2=0.0).replace("train", gradient_checkpointing=False)
    return cost_of(config).step_flops


def _smaller_batch(state: TrainerState, cost: Cost, free: float) -> str:
    """Return which options make the run fit into `free` bytes."""
    settings = state.settings
    sizes = range(settings.batch_gpu or settings.batch, 1, -1)
    fitting = [size for size in sizes if settings.batch % size == 0 and cost.memory(size) <= free]
    return memory_advice(fitting[0] if fitting else None, settings)


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"
