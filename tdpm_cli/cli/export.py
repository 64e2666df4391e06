"""`tdpm export`: write a model for other runtimes."""

from pathlib import Path
from typing import Annotated, Optional

import typer

from tdpm_cli.cli.options import (
    GUIDANCE,
    OUTPUT,
    SAMPLER_OPTIONS,
    Model,
    OverwriteFile,
    Settings,
    confirms,
    require_model,
    sampling_options,
)
from tdpm_cli.config.external import Confirmation
from tdpm_cli.export.target import export_target


@confirms
@sampling_options("steps", "spacing", "sampler", *SAMPLER_OPTIONS, *GUIDANCE)
def export(
    *,
    file: Annotated[Path, typer.Argument(help="File, or folder of diffusers, to write.")],
    model: Model = None,
    external: Confirmation,
    sampling: Settings,
    format: Annotated[
        Optional[str],
        typer.Option(
            help="safetensors (weights), or a sampler: torch, onnx, diffusers.",
            show_default="the suffix of FILE: .safetensors, .pt2, .onnx",
            rich_help_panel=OUTPUT,
        ),
    ] = None,
    rgb: Annotated[
        bool, typer.Option("--rgb", help="Write grey images in three channels.", rich_help_panel=OUTPUT)
    ] = False,
    licence: Annotated[str, typer.Option(help="Licence of the weights.", rich_help_panel=OUTPUT)] = "not stated",
    overwrite: OverwriteFile = False,
) -> None:
    """Export a model and check it in its runtime."""
    export_target(file, format)
    require_model(model)

    from tdpm_cli.export.export import ExportRequest
    from tdpm_cli.export.export import export as run

    run(file, model, format, ExportRequest(licence, rgb, sampling, overwrite, external))
