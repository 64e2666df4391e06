"""`tdpm train`: check, prepare and announce a run, then train it, or report its cost or its profile."""

import json
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

import torch

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints.runs import begun_config
from tdpm_cli.conditioning.captions.precompute import embed_captions
from tdpm_cli.config import external
from tdpm_cli.config.schema import Config
from tdpm_cli.convert import generator
from tdpm_cli.convert.convert import load_denoiser
from tdpm_cli.data.dataset import Dataset, KeepsInMemory
from tdpm_cli.runtime import device as devices
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import next_command, print_line, summary_table, summary_writer
from tdpm_cli.runtime.destinations import check_destination
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.locks import lock_run
from tdpm_cli.runtime.malloc import keep_freed_memory
from tdpm_cli.sampling.build import Components, build, check_together, open_dataset
from tdpm_cli.sampling.panels import IMAGES
from tdpm_cli.sampling.placement import with_precision
from tdpm_cli.training import resume as resuming
from tdpm_cli.training.budget import with_budget, with_lengths
from tdpm_cli.training.callbacks import Score
from tdpm_cli.training.cost import parameter_count
from tdpm_cli.training.rehearse import report_cost, report_profile, stage_speeds
from tdpm_cli.training.stages import stages_of
from tdpm_cli.training.state import TrainerState
from tdpm_cli.training.trainer import fit

CACHE_SHARE = 0.25  # of the free memory, for decoded images
MakeScore = Callable[[Components, Path, torch.device], Score]  # from a run's components and folder


@dataclass(frozen=True)
class Run:
    """A run that is ready to train: nothing of it has been written yet."""

    folder: Path
    state: TrainerState
    data: Dataset
    checkpoint: Path | None  # the one that --resume names


@distributed.joined()
def train(
    config: Config,
    outdir: Path = Path("runs"),
    name: str | None = None,
    resume: str = "auto",
    make_score: MakeScore | None = None,
    budget: float | None = None,
) -> Path:
    """Train a run, or continue it, until `train.duration` images were seen; return its folder.

    `resume` is "auto" (continue the run of this name if there is one), "never" (start another beside it), or the path
    of a run or a checkpoint. With `train.score`, `make_score` provides what scores checkpoints. With a `budget` in
    seconds, the speed of each stage is measured, and a new run gets the lengths that fit. Raises InputError for input
    that does not fit, before anything is written, and Interrupted once an interrupted run is saved.
    """
    if config.train.score and make_score is None:
        raise InputError("train.score is true, but no score is available: set it to false, or use `tdpm train`")
    run = prepare(config, outdir, name, resume, budget)
    score = (
        make_score(run.state.components, run.folder, run.state.device) if config.train.score and make_score else None
    )
    record = resuming.record_data(run.data)
    distributed.agree("data", record)
    is_new = not run.folder.exists()
    with lock_run(run.folder) if distributed.is_first() else nullcontext():
        _continue(run, record)
        _record(run, record)
        try:
            fit(run.state, run.data, run.folder, score)
        except BadFile:
            if is_new and distributed.is_first() and not checkpoint.list_checkpoints(run.folder):
                shutil.rmtree(run.folder)  # nothing was learned
            raise
    steps = config.sample.steps
    sample = next_command("tdpm sample --model", run.folder, "--steps", steps, "--n", "64", "samples/")
    print_line(f"done: {run.folder}\n{sample}")
    return run.folder


@distributed.joined()
def dry_run(
    config: Config,
    outdir: Path = Path("runs"),
    name: str | None = None,
    resume: str = "auto",
    budget: float | None = None,
) -> None:
    """Check everything that `train` would, and print the run's cost and speed. Writes nothing."""
    run = prepare(config, outdir, name, resume, budget)
    if folder := resuming.find_checkpoint(run.folder, run.checkpoint):
        resuming.check_config(folder, run.state.components.config)
    report_cost(run.state, run.data)
    print_line("dry run: nothing was written\nnext: the same command without --dry-run")


@distributed.joined()
def profile(config: Config, outdir: Path = Path("runs"), name: str | None = None, resume: str = "auto") -> None:
    """Print where the time of a step goes, and write a trace beside the run's folder."""
    run = prepare(config, outdir, name, resume)
    report_profile(run.state, run.data, run.folder.with_name(f"{run.folder.name}-profile.json"))


def prepare(config: Config, outdir: Path, name: str | None, resume: str, budget: float | None = None) -> Run:
    """Open the data, build the networks and announce the run. Raises InputError for what does not fit."""
    check_together(config)
    device = devices.device()
    keep_freed_memory()
    distributed.rows(config.train.batch)
    data_path = config.data.path
    data, config = open_dataset(config)
    distributed.agree("settings", resuming.flatten(config.to_dict()))
    folder, named = distributed.from_first(lambda: resuming.find_run(outdir, name or config.preset, resume))
    check_destination(folder, [data_path], option="--outdir")
    distributed.from_first(lambda: resuming.require_run(folder))
    config = resuming.settle_precision(config, folder)
    components = _build(config, device)
    if budget is not None:
        components = replace(components, config=_within(budget, components.config, data, folder))
    _announce(components, data, folder)
    if config.train.tensorboard:
        summary_writer()  # raises InputError if TensorBoard is not installed
    raw, raw_condition = data[range(min(IMAGES, len(data)))]  # unreadable data fail before a folder is made
    components.condition.encode({**raw_condition, "raw": raw})
    components.space.encode(raw[:1].to(device))
    if not checkpoint.list_checkpoints(folder):
        _initialize(components)
    return Run(folder, TrainerState(components, device), data, named)


def _build(config: Config, device: torch.device) -> Components:
    # Sharded weights are built on the host: they may not fit on one device.
    return with_precision(build(config, "cpu" if config.train.shard else device), device)


def _within(seconds: float, config: Config, data: Dataset, folder: Path) -> Config:
    """Return the config with the lengths of stages that fit into `seconds`, or those that the run was begun with."""
    if (before := begun_config(folder)) is not None:
        return with_lengths(config, [stage.duration for stage in before.train.stages_in_order])
    state = TrainerState(_build(config, devices.device()), devices.device())  # its weights are not used further
    return with_budget(config, seconds, stage_speeds(state, data))


def _initialize(components: Components) -> None:
    """Load the weights that a new run starts from."""
    settings = components.config.train
    if settings.init is not None:
        for note in load_denoiser(components, settings.init):
            print_line(f"note: {note}")
    if settings.init_prior is not None:
        generator.load_generator(components, settings.init_prior)


def _continue(run: Run, record: resuming.DataRecord) -> None:
    """Restore the checkpoint to continue from, if there is one. Raises InputError for other data or another config."""
    folder = distributed.from_first(lambda: resuming.find_checkpoint(run.folder, run.checkpoint))
    if folder is None:
        return
    resuming.check_config(folder, run.state.components.config)
    resuming.check_data(run.folder, record)
    if distributed.is_first():
        checkpoint.set_aside(run.folder, newer_than=folder)
    run.state.restore(folder)
    seen, duration = run.state.seen, run.state.settings.duration
    print_line(f"continuing {run.folder} at {seen / 1000:g} kimg")
    if seen > duration:
        print_line(
            f"note: train.duration is {duration:,} images, but the run was trained on {seen:,} already; nothing is "
            "left to train. Raise --duration to train further"
        )


def _record(run: Run, record: resuming.DataRecord) -> None:
    """Compute what training needs once, and write the record of the data and what else the run is made of."""
    components, settings = run.state.components, run.state.settings
    embed_captions(components.condition, run.data, run.state.device)
    if distributed.is_first():
        external.remember_config(components.config)
        write_text(run.folder / "config.yaml", components.config.to_yaml())
        write_text(run.folder / resuming.DATA_RECORD, json.dumps(record, indent=1))
        generator.copy_program(components, run.folder)
    if settings.cache and isinstance(run.data, KeepsInMemory):
        run.data.keep_in_memory(CACHE_SHARE * free_memory(torch.device("cpu")) / distributed.size_here())


def _announce(components: Components, data: Dataset, run: Path) -> None:
    config, processes = components.config, distributed.size()
    model, discriminator = parameter_count(components.model), parameter_count(components.discriminator)
    shared = f" over {processes} processes" if processes > 1 else ""
    number_format = devices.describe(config.train.precision, devices.device())
    rows = {
        "data": f"{config.data.name}: {len(data):,} of {' × '.join(map(str, components.space.raw_shape))}",
        "truncation": components.schedule_text,
        "model": f"{model / 1e6:.3g} M parameters, prior {config.prior.name!r}",
        "discriminator": f"{discriminator / 1e6:.3g} M parameters" if discriminator else "none",
        "train": f"{config.train.duration / 1000:g} kimg, batch {config.train.batch}{shared}, {number_format}",
        **{f"stage {stage.number + 1}": stage.text for stage in stages_of(config.train) if config.train.stages},
        "run": str(run),
    }
    summary_table(f"tdpm train {config.preset}", rows)
    for note in [*data.notes, *_empty_classes(config)]:
        print_line(f"note: {note}")


def _empty_classes(config: Config) -> list[str]:
    """Return a note about the classes that have no examples, if there are any."""
    counts = cast(list[int], config.condition.options.get("counts") or [])
    if not counts:
        return []
    names = cast(list[str], config.condition.options.get("names") or [str(k) for k in range(len(counts))])
    if not (empty := [name for name, count in zip(names, counts, strict=True) if not count]):
        return []
    first = next(k for k, count in enumerate(counts) if count)
    begin = f"labels begin at {first}, not 0, and " if first else ""
    some = f"{len(empty):,} of {len(counts):,} classes have no examples, such as {empty[0]}"
    return [f"{begin}{some}; tdpm never draws them"]
