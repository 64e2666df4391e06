"""tdpm train: what is asked is checked, placed and announced, then trained or rehearsed."""

import json
import shutil
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import nn

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.conditioning.captions.precompute import embed_captions
from tdpm_cli.config import load_config, presets
from tdpm_cli.config.schema import Config
from tdpm_cli.convert import generator
from tdpm_cli.convert.convert import load_denoiser
from tdpm_cli.data.dataset import Dataset, FromImageFiles, KeepsInMemory
from tdpm_cli.evaluation.while_training import checkpoint_scorer
from tdpm_cli.runtime import device as precision
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import say, summary_writer, table
from tdpm_cli.runtime.device import free_memory
from tdpm_cli.runtime.errors import BadFile, InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.locks import lock_run
from tdpm_cli.runtime.malloc import keep_freed_memory
from tdpm_cli.sampling.build import Components, build, open_dataset
from tdpm_cli.sampling.panels import IMAGES
from tdpm_cli.sampling.placement import with_precision
from tdpm_cli.training import profiling
from tdpm_cli.training.cost import cost_of
from tdpm_cli.training.trainer import Scoring, Trainer, smaller_batches

CACHED = 0.25  # of the free memory that decoded images may fill
RUN_IN, REHEARSAL = 1.0, 10.0  # seconds: a step that takes longer is measured at once; and of all measured steps
DATA = "data.json"  # in a run: what its data were when it began
STATED = (
    "train.batch",
    "train.batch_gpu",
    "train.gradient_checkpointing",
    "train.shard",
)  # that change sums, but not their meaning
MAY_CHANGE = (
    *STATED,
    "preset",
    "train.duration",
    "train.workers",
    "train.keep",
    "train.score",
    "train.max_skipped_steps",
    "train.on_save_error",
    "train.log",
    "train.tensorboard",
    "train.cache",
    "data.path",
    "data.download",
    "data.quarantine",
)
NOT_OF_TRAINING = ("sample.", "eval.")  # sections that weights do not depend on


@distributed.joined()
def train(
    config: Config,
    outdir: Path = Path("runs"),
    name: str | None = None,
    resume: str = "auto",
    dry_run: bool = False,
    profile: bool = False,
) -> Path | None:
    """Train a run, or continue it, until `train.duration` images were seen; return its folder.

    `resume` is "auto" (continue the run of this name if there is one), "never" (begin another beside it) or
    the path of a run or checkpoint. With `dry_run` or `profile` a few steps are timed, and nothing is trained. Raises
    InputError for input that does not fit, before anything is written, and Interrupted once an interrupted run is
    saved.
    """
    device = precision.device()
    keep_freed_memory()
    distributed.rows(config.train.batch)
    data, config = open_dataset(config)
    distributed.agree("settings", _flat(config.to_dict()))
    run, folder = distributed.from_first(lambda: _place(outdir, name or config.preset, resume))
    # Weights that are shared among processes are built on the host, for they may be too many for one device.
    made = with_precision(build(_settled(config, run), "cpu" if config.train.shard else device), device)
    config = made.config
    _announce(made, data, run)
    if config.train.tensorboard:
        summary_writer()
    raw, given = data[range(min(IMAGES, len(data)))]  # what cannot be read or encoded fails before a folder is made
    made.condition.encode({**given, "raw": raw})
    made.space.encode(raw[:1].to(device))
    if not checkpoint.list_checkpoints(run):
        if config.train.init is not None:
            for note in load_denoiser(made, config.train.init):
                say(f"note: {note}")
        if config.train.init_prior is not None:
            generator.load_generator(made, config.train.init_prior)
    trainer = Trainer(made, run, device)
    scoring = checkpoint_scorer(made, run, device) if config.train.score and not (profile or dry_run) else None
    if profile:
        _profile(trainer, data, run.with_name(f"{run.name}-profile.json"))
        return None
    if dry_run:
        if start := _start(run, folder):
            _same_config(start, config)
        _rehearse(trainer, data)
        say("dry run: no run was begun\nnext: the same command without --dry-run")
        return None
    _learn(trainer, data, folder, scoring)
    say(f"done: {run}\nnext: tdpm sample --model {run} --steps {config.sample.steps} --n 64 samples/")
    return run


def _learn(trainer: Trainer, data: Dataset, folder: Path | None, scoring: Scoring | None) -> None:
    """Continue the run from its newest checkpoint, or from `folder`, if there is one; else begin it."""
    made, run, is_new = trainer.made, trainer.run, not trainer.run.exists()
    config, record, writes = made.config, _record(data), distributed.is_first()
    distributed.agree("data", record)
    with lock_run(run) if writes else nullcontext():
        if start := distributed.from_first(lambda: _start(run, folder)):
            _same_config(start, config)
            _same_data(run, record)
            if writes:
                checkpoint.set_aside(run, newer_than=start)
            trainer.restore(start)
            say(f"continuing {run} at {trainer.seen / 1000:g} kimg")
        embed_captions(made.condition, data, trainer.device)
        if writes:
            write_text(run / "config.yaml", config.to_yaml())
            write_text(run / DATA, json.dumps(record, indent=1))
            generator.copy_program(made, run)
        if config.train.cache and isinstance(data, KeepsInMemory):
            data.keep_in_memory(CACHED * free_memory(torch.device("cpu")) / distributed.size_here())
        try:
            trainer.fit(data, scoring)
        except BadFile:
            if is_new and writes and not checkpoint.list_checkpoints(run):  # before anything was learned
                shutil.rmtree(run)
            raise


def _place(outdir: Path, name: str, resume: str) -> tuple[Path, Path | None]:
    """The run's folder, and the checkpoint that `resume` names, if it names one."""
    run = outdir / name
    if resume == "never":
        taken = (outdir / f"{name}-{k}" for k in range(2, 1_000_000))
        return (run if not run.exists() else next(path for path in taken if not path.exists())), None
    if resume == "auto":
        return run, None
    folder = Path(resume)
    if not checkpoint.is_checkpoint(folder):
        if not checkpoint.list_checkpoints(folder):
            raise InputError(f"--resume {resume}: neither a run with a checkpoint nor a checkpoint; or: auto, never")
        return folder, None
    run = folder.resolve().parent.parent
    if newer := [path.name for path in checkpoint.list_checkpoints(run) if path.name > folder.name]:
        raise InputError(
            f"--resume {resume}: the run has newer checkpoints ({', '.join(newer)}), which would be taken up "
            "again; move them away to go back, or resume the run itself"
        )
    return run, folder


def _settled(config: Config, run: Path) -> Config:
    """The config with the number format that the run settled on for "auto", where it began before."""
    path = run / "config.yaml"
    if config.train.precision != "auto" or not path.is_file():
        return config
    before = load_config(presets.read_yaml(path.read_text(), str(path)))
    return config.replace("train", precision=before.train.precision)


def _start(run: Path, folder: Path | None) -> Path | None:
    """The checkpoint to continue from: the one that was named, which must be sound, or the run's newest that is."""
    if folder is None:
        return checkpoint.newest(run)
    formats.verify(folder)
    return folder


def _same_config(start: Path, config: Config) -> None:
    """Refuse to continue a run with another config, naming the differences; say what changes sums."""
    now, state = _flat(config.to_dict()), formats.read_state(start)
    # Through Config, for keys that are newer than the run had their default's effect.
    before = _flat(load_config(state["config"]).to_dict())
    differing = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    listed = {key: f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in differing}
    refused = [text for key, text in listed.items() if key not in MAY_CHANGE and not key.startswith(NOT_OF_TRAINING)]
    if refused:
        raise InputError(
            f"{start} was trained with another config:\n  "
            + "\n  ".join(refused)
            + "\nContinue it with the same settings, or begin another with --name or --resume never."
        )
    stated = [listed[key] for key in STATED if key in listed]
    if (processes := state.get("processes", 1)) != distributed.size():
        stated.append(f"processes: {processes} there, {distributed.size()} here")
    if config.train.cooldown and "train.duration" in listed and state["seen"] < config.train.duration:
        say(
            f"note: {listed['train.duration']}; with train.cooldown, which counts from the end, learning rates are now "
            "those of a run of this length, and may have fallen before"
        )
    for text in stated:
        say(f"note: {text}; the order of the images stays, but the weights will not be the very same")


def _flat(plain: Mapping[str, Any]) -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for section, value in plain.items():
        flat |= {f"{section}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {section: value}
    return flat


def _record(data: Dataset) -> dict[str, Any]:
    """What a run's data were when it began."""
    quarantined = data.files.quarantined if isinstance(data, FromImageFiles) else 0
    return {"examples": len(data), "quarantined": quarantined, "fingerprint": data.fingerprint()}


def _same_data(run: Path, record: Mapping[str, Any]) -> None:
    """Refuse to continue a run with other data than it began with."""
    path = run / DATA
    if not path.is_file():
        return
    try:
        before = dict(json.loads(path.read_text()))
    except (ValueError, TypeError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}); move it away if the data are surely the same") from None
    if before.get("fingerprint") != record["fingerprint"]:
        raise InputError(
            f"the data have changed since {run} began: {before.get('examples'):,} examples then, "
            f"{record['examples']:,} now, and not the same ones. Give the same data, or begin another run with --name"
        )
    if before.get("quarantined") != record["quarantined"]:
        say(
            f"note: {record['quarantined']:,} images are in quarantine, {before.get('quarantined'):,} when the run "
            "began or last continued; the order of the images is another from here on"
        )


def _rehearse(trainer: Trainer, data: Dataset) -> None:
    """Print what the run would cost, and how fast a few steps are here."""
    config, settings = trainer.made.config, trainer.settings
    cost, size = cost_of(config), settings.batch_gpu or settings.batch
    rate, count = trainer.rehearse(data, RUN_IN, REHEARSAL)
    GiB, MiB = 2**30, 2**20
    total = (cost.state_bytes + size * cost.activation_bytes) / GiB
    free = free_memory(trainer.device) / GiB
    fitting = [
        n
        for n in range(size, 1, -1)
        if settings.batch % n == 0 and (cost.state_bytes + n * cost.activation_bytes) / GiB <= free
    ]
    rows = {
        "parameters": f"{cost.model / 1e6:.4g} M, discriminator {cost.discriminator / 1e6:.4g} M",
        "compute": f"{cost.call_flops / 1e9:.4g} GFLOP a network call, "
        f"{cost.step_flops / 1e9:.4g} GFLOP an image trained",
        "memory": f"at most about {total:.3g} GiB: {cost.state_bytes / GiB:.3g} for weights, averages and optimizers, "
        f"and {cost.activation_bytes / MiB:.4g} MiB for each of {size} images at a time",
        "free here": f"{free:.3g} GiB"
        + ("" if total <= free else ": too little; try " + smaller_batches(fitting, settings)),
        "speed here": f"{rate:.3g} images a second ({count} images on {trainer.device}, {settings.precision})",
        "time here": f"{_duration(settings.duration / rate)} for {settings.duration / 1000:g} kimg",
    }
    table("cost", [{"": key, " ": value} for key, value in rows.items()])


def _profile(trainer: Trainer, data: Dataset, trace: Path) -> None:
    """Print where the time of a step goes, and write it down for a viewer of traces."""
    settings, device = trainer.settings, trainer.device
    raw, conditions = data[[k % len(data) for k in range(settings.batch // distributed.size())]]
    cast = precision.autocast(settings.precision, device)

    def step() -> None:
        trainer.step = 1  # a step without the lazy penalty, as most are
        trainer.train_on(raw, conditions, cast)

    found = profiling.profile(step, device, trace if distributed.is_first() else None)
    table("where the time goes", found.rows)
    peak, done = profiling.matrix_peak(settings.precision, device), _useful_flops(trainer.made.config) * len(raw)
    rows = {
        "step": f"{found.seconds:.4g} s, {len(raw) / found.seconds:.4g} images a second"
        + (" in each process" if distributed.size() > 1 else ""),
        "compute": f"{done / 1e9:.4g} GFLOP a step, {done / found.seconds / 1e9:.4g} GFLOP/s",
        "matrix peak": f"{peak / 1e9:.4g} GFLOP/s in {precision.describe(settings.precision, device)}, measured now",
        "MFU": f"{done / found.seconds / peak:.1%} of that peak",
    }
    table("profile", [{"": key, " ": value} for key, value in rows.items()])
    say(f"trace: {trace}, for chrome://tracing or ui.perfetto.dev\nnext: the same command without --profile")


def _useful_flops(config: Config) -> int:
    """Operations of such a step for one image: no lazy penalty, and nothing computed twice to save memory."""
    config = config.replace("adversarial", r1=0.0, r2=0.0).replace("train", gradient_checkpointing=False)
    return cost_of(config).step_flops


def _duration(seconds: float) -> str:
    for unit, size in (("days", 86400.0), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} seconds"


def _announce(made: Components, data: Dataset, run: Path) -> None:
    config = made.config
    number_format = precision.describe(config.train.precision, precision.device())
    count: Sequence[nn.Module | None] = (made.model, made.discriminator)
    model, discriminator = (sum(p.numel() for p in net.parameters()) if net else 0 for net in count)
    shared = f" over {distributed.size()} processes" if distributed.size() > 1 else ""
    rows = {
        "data": f"{config.data.name}: {len(data):,} of {' × '.join(map(str, made.space.raw_shape))}",
        "cut": made.schedule_text,
        "model": f"{model / 1e6:.3g} M parameters, prior {config.prior.name!r}",
        "discriminator": f"{discriminator / 1e6:.3g} M parameters" if discriminator else "none",
        "train": f"{config.train.duration / 1000:g} kimg, batch {config.train.batch}{shared}, {number_format}",
        "run": str(run),
    }
    table(f"tdpm train {config.preset}", [{"": key, " ": value} for key, value in rows.items()])
    for note in data.notes:
        say(f"note: {note}")
