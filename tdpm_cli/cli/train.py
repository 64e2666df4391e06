"""Words and options of `tdpm train`."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from tdpm_cli.cli.options import Nproc, existing, in_processes, trained


def train(
    preset: Annotated[
        str, typer.Option(help="A preset's name (see `tdpm presets`), a YAML file, or auto: proposed from --data.")
    ],
    data: Annotated[
        Optional[Path],
        typer.Option(
            help="The training images: a folder, a zip, an LMDB, .tar shards, idx files, .npz.",
            callback=existing("--data"),
        ),
    ] = None,
    download: Annotated[
        bool, typer.Option("--download", help="Fetch the preset's data where they are missing.")
    ] = False,
    outdir: Annotated[Path, typer.Option(help="The folder of all runs.")] = Path("runs"),
    name: Annotated[Optional[str], typer.Option(help="The run's name.", show_default="the preset's")] = None,
    duration: Annotated[Optional[str], typer.Option(help="Length in training images, such as 200k or 2M.")] = None,
    batch: Annotated[Optional[int], typer.Option(help="Images a step.")] = None,
    batch_gpu: Annotated[
        Optional[int], typer.Option(help="Images at a time, where memory is short.", show_default="the batch")
    ] = None,
    seed: Annotated[Optional[int], typer.Option(help="Seed of all randomness.")] = None,
    precision: Annotated[Optional[str], typer.Option(help="auto, fp32 or bf16.")] = None,
    compile: Annotated[
        Optional[bool], typer.Option("--compile/--no-compile", help="torch.compile the network.")
    ] = None,
    init: Annotated[
        Optional[str],
        typer.Option(
            help="Begin from a trained denoiser: a run or file of tdpm, or diffusers:, ddim:, guided-diffusion:PATH.",
            show_default="random weights",
            callback=trained,
        ),
    ] = None,
    init_prior: Annotated[
        Optional[str],
        typer.Option(
            help="A trained generator as the prior: .safetensors, a run, or a TorchScript program (code: it is run).",
            show_default="random weights",
            callback=existing("--init-prior", "accepted: a TorchScript program, .safetensors of a generator, or a run"),
        ),
    ] = None,
    objective: Annotated[
        Optional[str], typer.Option(help="tdpm, or prior: freeze the denoiser.", show_default="tdpm")
    ] = None,
    resume: Annotated[str, typer.Option(help="auto, never, or the path of a run or checkpoint.")] = "auto",
    on_save_error: Annotated[
        Optional[str],
        typer.Option(
            help="Where the disk refuses a checkpoint: stop, or continue until the next.", show_default="stop"
        ),
    ] = None,
    set_: Annotated[
        Optional[list[str]],
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any key of the preset; repeatable."),
    ] = None,
    nproc: Nproc = 1,
    max_restarts: Annotated[
        int, typer.Option(min=0, help="With --nproc: times to start again from the last checkpoint if one fails.")
    ] = 0,
    profile: Annotated[
        bool, typer.Option("--profile", help="Show where the time of a step goes, write a trace, stop.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, show plan, cost and speed, stop.")
    ] = False,
) -> None:
    """Train a model. The same command again continues an interrupted run."""
    from tdpm_cli.config import presets, schema
    from tdpm_cli.runtime.errors import InputError

    flags = {"duration": duration, "batch": batch, "batch_gpu": batch_gpu, "seed": seed, "precision": precision,
             "compile": compile, "init": init, "init_prior": init_prior, "objective": objective,
             "on_save_error": on_save_error}  # fmt: skip
    given = {key: value for key, value in flags.items() if value is not None}

    def settled(plain: dict[str, Any]) -> dict[str, Any]:
        """What is set by hand stands, whatever a preset or another model says; a flag before --set."""
        return presets.overlay(presets.override(plain, set_ or []), "train", given)

    # What words alone tell comes before anything that imports PyTorch.
    if resume not in ("auto", "never") and not Path(resume).exists():
        raise InputError(f"--resume {resume}: no such run or checkpoint; accepted: auto, never, or the path of one")
    if preset == "auto":
        if data is None:
            raise InputError("--preset auto looks at your data: give them with --data PATH")
        from tdpm_cli.data.auto_preset import propose

        plain = propose(data)
    else:
        plain = presets.read_preset(preset)
    plain = settled(plain)
    elsewhere = {"data"} if data else set()  # sections that are known when other files are read
    elsewhere |= {"backbone", "schedule", "denoiser", "condition"} if init else set()
    elsewhere |= {"prior"} if init_prior else set()
    schema.validate_sections(plain, elsewhere)

    if init is not None:
        from tdpm_cli.convert.convert import preset_of_denoiser

        plain = settled(preset_of_denoiser(plain, init))
    if init_prior is not None:
        from tdpm_cli.convert.generator import preset_of_generator

        plain = settled(preset_of_generator(plain, init_prior))
    config = schema.load_config(presets.with_data(plain, data, download, set_ or []))

    from tdpm_cli.training import train as training

    in_processes(nproc, max_restarts)
    if profile:
        training.profile(config, outdir, name, resume)
    elif dry_run:
        training.dry_run(config, outdir, name, resume)
    else:
        from tdpm_cli.evaluation.while_training import checkpoint_scorer

        training.train(config, outdir, name, resume, checkpoint_scorer)
