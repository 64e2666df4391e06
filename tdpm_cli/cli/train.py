"""`tdpm train`: train a model."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    DATA,
    MACHINE,
    MODEL,
    OUTPUT,
    TRAINING,
    Assignments,
    Processes,
    Settings,
    existing,
    in_processes,
    settings_options,
)
from tdpm_cli.config.types import parse_seconds


def known_init(init: Optional[str]) -> Optional[str]:
    """Raise InputError for an --init that does not exist and has no importer's prefix."""
    from tdpm_cli.convert.source import init_source

    if init is not None:
        init_source(init)
    return init


def known_time(text: Optional[str]) -> Optional[str]:
    """Raise InputError for a --budget that is no time."""
    if text is not None and not parse_seconds(text):
        from tdpm_cli.runtime.errors import InputError

        raise InputError(f"--budget {text}: it must be a time with a unit, such as 90s, 10min, 8h or 2d")
    return text


TrainingData = Annotated[
    Optional[Path],
    typer.Option(
        help="Training images: folder, zip, LMDB, .tar, idx or .npz.",
        callback=existing("--data"),
        rich_help_panel=DATA,
    ),
]
Init = Annotated[
    Optional[str],
    typer.Option(
        help="Trained denoiser: tdpm's, or diffusers:, ddim:, guided-diffusion:PATH.",
        show_default="random weights",
        callback=known_init,
        rich_help_panel=MODEL,
    ),
]
Restarts = Annotated[int, typer.Option(min=0, help="Restarts if a process of --nproc fails.", rich_help_panel=MACHINE)]
Budget = Annotated[
    Optional[str],
    typer.Option(help="Time to train, such as 10min or 8h.", callback=known_time, rich_help_panel=TRAINING),
]
InitPrior = Annotated[
    Optional[str],
    typer.Option(
        help="Trained generator: .safetensors, run, or TorchScript (executes its code).",
        show_default="random weights",
        callback=existing("--init-prior", "accepted: a TorchScript program, .safetensors of a generator, or a run"),
        rich_help_panel=MODEL,
    ),
]

AllowExternal = Annotated[
    bool,
    typer.Option("--allow-external", help="Open all files and hubs that --init names.", rich_help_panel=MODEL),
]


@settings_options(
    "settings",
    "TrainConfig",
    "duration",
    "batch",
    "batch_gpu",
    "denoiser_lr",
    "seed",
    "objective",
    "on_save_error",
    panel=TRAINING,
)
@settings_options("machine", "TrainConfig", "precision", "compile", panel=MACHINE)
def train(
    *,
    preset: Annotated[
        str,
        typer.Option(help="Preset's name or YAML file; auto proposes one.", rich_help_panel=TRAINING),
    ],
    settings: Settings,
    data: TrainingData = None,
    download: Annotated[
        bool, typer.Option("--download", help="Download the preset's dataset if missing.", rich_help_panel=DATA)
    ] = False,
    outdir: Annotated[Path, typer.Option(help="Folder of all runs.", rich_help_panel=OUTPUT)] = Path("runs"),
    name: Annotated[
        Optional[str], typer.Option(help="Name of the run.", show_default="the preset's", rich_help_panel=OUTPUT)
    ] = None,
    budget: Budget = None,
    init: Init = None,
    init_prior: InitPrior = None,
    allow_external: AllowExternal = False,
    resume: Annotated[
        str, typer.Option(help="auto, never, or a run's or checkpoint's path.", rich_help_panel=TRAINING)
    ] = "auto",
    set_: Assignments = None,
    machine: Settings,
    nproc: Processes = 1,
    max_restarts: Restarts = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Profile a training step, then exit.", rich_help_panel=MACHINE)
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show plan, cost and speed, then exit.", rich_help_panel=TRAINING)
    ] = False,
) -> None:
    """Train a model; run again to continue."""
    from tdpm_cli.config.presets import Override
    from tdpm_cli.runtime.errors import InputError
    from tdpm_cli.training.config import Sources, training_config

    if resume not in ("auto", "never") and not Path(resume).exists():
        raise InputError(f"--resume {resume}: no such run or checkpoint; accepted: auto, never, or a path")
    if budget is not None and "duration" in settings:
        raise InputError("--budget and --duration exclude each other: the budget sets the duration")
    seconds = None if budget is None else parse_seconds(budget)
    overrides: list[Override] = [*(set_ or []), {"train": settings | machine}]
    config = training_config(preset, overrides, Sources(data, download, init, init_prior, allow_external))

    from tdpm_cli.sampling.build import check_together
    from tdpm_cli.training import train as training

    check_together(config)  # before processes start and data are downloaded
    in_processes(nproc, max_restarts)
    if profile:
        training.profile(config, outdir, name, resume)
    elif dry_run:
        training.dry_run(config, outdir, name, resume, seconds)
    else:
        from tdpm_cli.evaluation.while_training import checkpoint_scorer

        training.train(config, outdir, name, resume, checkpoint_scorer, seconds)
