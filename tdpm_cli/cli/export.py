"""Words and options of `tdpm export`."""

from pathlib import Path
from typing import Annotated, Any, Optional

import typer

from tdpm_cli.cli.options import Model, Shown, ready
from tdpm_cli.config.constants import export_format


def export(
    file: Annotated[Path, typer.Argument(help="The file, or for diffusers the folder, to write.")],
    model: Model = None,
    format: Annotated[
        Optional[str],
        typer.Option(
            help="safetensors (weights and config), or the whole sampler: torch, onnx, diffusers.",
            show_default="by FILE's suffix: .safetensors, .pt2, .onnx",
        ),
    ] = None,
    steps: Annotated[Optional[int], Shown(help="Of a sampler: reverse steps.")] = None,
    spacing: Annotated[Optional[float], Shown(help="Of the steps: 1 even, 2 shorter near the data.")] = None,
    sampler: Annotated[Optional[str], Shown(help="Such as ddim, ddpm or dpmpp_2m.")] = None,
    eta: Annotated[Optional[float], Shown(help="Noise of ddim.")] = None,
    guidance_scale: Annotated[Optional[float], Shown(help="Classifier-free guidance: 1 = off.")] = None,
    prior_guidance_scale: Annotated[Optional[float], Shown(help="The same of the prior.")] = None,
    rgb: Annotated[bool, typer.Option("--rgb", help="Grey images in three channels, for tools that want RGB.")] = False,
    licence: Annotated[str, typer.Option(help="Of the weights; stands in the file.")] = "not stated",
) -> None:
    """Write a trained model for other runtimes, and check it there against ours."""
    sampling: dict[str, Any] = {
        "steps": steps,
        "spacing": spacing,
        "sampler": sampler,
        "eta": eta,
        "guidance_scale": guidance_scale,
        "prior_guidance_scale": prior_guidance_scale,
    }
    export_format(file, format)
    ready(model, **sampling)

    from tdpm_cli.export.export import export as run

    run(file, model, format, licence=licence, rgb=rgb, **sampling)
