"""Which run and checkpoint a command continues, and what may change in between."""

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.checkpoints.runs import CHECKPOINTS, begun_config
from tdpm_cli.config import load_stored_config
from tdpm_cli.config.schema import Config
from tdpm_cli.config.types import PlainConfig, Value
from tdpm_cli.data.dataset import Dataset, FromImageFiles
from tdpm_cli.runtime import distributed
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.locks import RUN_LOCK
from tdpm_cli.runtime.records import Natural, Record, read_record

DATA_RECORD = "data.json"  # in a run: a record of its data
ROUNDING_KEYS = (  # a change leaves the mathematics of training, but not the rounding
    "train.batch",
    "train.batch_gpu",
    "train.gradient_checkpointing",
    "train.shard",
    "train.compile",
)
FREE_KEYS = (  # a change has no effect on the weights after a number of images
    "preset",
    "train.duration",
    "train.workers",
    "train.snapshot",
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
    "condition.counts",
)
FREE_SECTIONS = ("sample.", "eval.")


class DataRecord(TypedDict):
    """What a run records of its data."""

    examples: int
    quarantined: int  # images that are skipped
    fingerprint: str


class StoredDataRecord(Record):
    """The content of `data.json`; older versions lack the number of quarantined images."""

    examples: Natural
    quarantined: Natural = 0
    fingerprint: str


def find_run(outdir: Path, name: str, resume: str) -> tuple[Path, Path | None]:
    """Return the folder of the run, and the checkpoint that `--resume` names, or None.

    Raises InputError for a name that is a path, if `--resume` names neither a run nor a checkpoint, or if it names a
    checkpoint that has newer ones.
    """
    if Path(name).name != name or name == ".." or "\0" in name:
        raise InputError(f"--name {name}: it must be a plain name, not a path; use --outdir for another folder")
    run = outdir / name
    if resume == "never":
        numbered = (outdir / f"{name}-{k}" for k in range(2, 1_000_000))
        return (run if not run.exists() else next(path for path in numbered if not path.exists())), None
    if resume == "auto":
        return run, None
    folder = Path(resume)
    if not checkpoint.is_checkpoint(folder):
        if not checkpoint.list_checkpoints(folder):
            raise InputError(
                f"--resume {resume}: no checkpoint found; accepted: auto, never, or the path of a run or a checkpoint"
            )
        return folder, None
    run = folder.resolve().parent.parent
    if newer := [path.name for path in checkpoint.list_checkpoints(run) if path.name > folder.name]:
        raise InputError(
            f"--resume {resume}: the run has newer checkpoints ({', '.join(newer)}), from which it would continue; "
            "to go back, move them away, or else resume the run itself"
        )
    return run, folder


def require_run(folder: Path) -> None:
    """Raise InputError for a folder of other files than those of a run, in which a run would replace some."""
    names = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    if names and not names & {RUN_LOCK, CHECKPOINTS}:
        raise InputError(f"{folder}: not empty, and not a run; use another --name or --outdir")


def settle_precision(config: Config, run: Path) -> Config:
    """Replace the precision "auto" by the one that the run was begun with, if it was begun."""
    if config.train.precision != "auto" or (before := begun_config(run)) is None:
        return config
    return config.replace("train", precision=before.train.precision)


def find_checkpoint(run: Path, named: Path | None) -> Path | None:
    """Return the checkpoint to continue from: `named`, or the newest intact one of the run, or None.

    Raises InputError for a damaged checkpoint.
    """
    if named is None:
        return checkpoint.newest(run)
    formats.verify(named)
    return named


def check_config(folder: Path, config: Config) -> None:
    """Raise InputError if the config differs from the checkpoint's where it may not; note other differences."""
    now, state = flatten(config.to_dict()), formats.read_state(folder)
    # Loading the config fills in keys that are newer than the run, whose default was in effect then.
    before = flatten(load_stored_config(state["config"]).to_dict())
    keys = sorted(key for key in before.keys() | now.keys() if before.get(key) != now.get(key))
    changes = {key: f"{key}: {before.get(key)!r} there, {now.get(key)!r} here" for key in keys}
    rejected = [text for key, text in changes.items()
                if key not in (*ROUNDING_KEYS, *FREE_KEYS) and not key.startswith(FREE_SECTIONS)]  # fmt: skip
    if rejected:
        raise InputError(
            f"{folder} was trained with another config:\n  " + "\n  ".join(rejected)
            + "\nContinue it with the same settings, or start another run with --name or --resume never. "
            f"`--name NEW --init {folder.parents[1]}` starts one from the denoiser that this run has trained."
        )  # fmt: skip
    if config.train.cooldown and "train.duration" in changes and state["seen"] < config.train.duration:
        print_line(
            f"note: {changes['train.duration']}; train.cooldown counts from the end, so learning rates may rise again"
        )
    notes = [changes[key] for key in ROUNDING_KEYS if key in changes]
    if (processes := state.get("processes", 1)) != distributed.size():
        notes.append(f"processes: {processes} there, {distributed.size()} here")
    for note in notes:
        print_line(f"note: {note}; the order of images stays the same, but the weights will differ by rounding")


def flatten(plain: Mapping[str, Value]) -> PlainConfig:
    """Return plain values of a config with keys such as "train.batch"."""
    flat: PlainConfig = {}
    for section, value in plain.items():
        flat |= {f"{section}.{key}": v for key, v in value.items()} if isinstance(value, dict) else {section: value}
    return flat


def record_data(data: Dataset) -> DataRecord:
    """Return the record of the data that a run keeps."""
    quarantined = data.files.quarantined if isinstance(data, FromImageFiles) else 0
    return DataRecord(examples=len(data), quarantined=quarantined, fingerprint=data.fingerprint())


def check_data(run: Path, record: DataRecord) -> None:
    """Raise InputError if the data differ from those that the run was begun with."""
    path = run / DATA_RECORD
    if not path.is_file():
        return
    advice = "move it away if the data are certainly the same"
    before = {"quarantined": 0, **read_record(path, StoredDataRecord, advice)}
    if before.get("fingerprint") != record["fingerprint"]:
        raise InputError(
            f"the data have changed since {run} was begun: {before.get('examples'):,} examples then, "
            f"{record['examples']:,} now, with different content. Restore the data, or start another run with --name"
        )
    if before.get("quarantined") != record["quarantined"]:
        print_line(
            f"note: {record['quarantined']:,} images are in quarantine, {before.get('quarantined'):,} before; "
            "the order of images changes from here on"
        )
