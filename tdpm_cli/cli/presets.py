"""`tdpm presets`: list presets, print one, or write their JSON Schema."""

import json
from collections.abc import Sequence
from typing import Annotated, Optional, TypedDict, cast

import typer


class Stated(TypedDict, total=False):
    """What the comments at the head of a preset state; tests compare it with the networks."""

    parameters: dict[str, int]
    cost: dict[str, float]


def presets(
    name: Annotated[Optional[str], typer.Argument(help="Preset to print.")] = None,
    schema: Annotated[bool, typer.Option("--schema", help="Print the JSON Schema of presets.")] = False,
) -> None:
    """List the presets, or print one."""
    from tdpm_cli.config.presets import preset_path
    from tdpm_cli.runtime.console import next_command, print_line, print_result

    if schema:
        from tdpm_cli.config.json_schema import json_schema

        print_result(json.dumps(json_schema(), indent=2) + "\n")
    elif name:
        print_result(preset_path(name).read_text(encoding="utf-8"))
        print_line(next_command("tdpm train --preset", name))
    else:
        _list()


def _list() -> None:
    """Print a table of presets with size and cost."""
    from tdpm_cli.config.presets import preset_names
    from tdpm_cli.runtime.console import print_line, table

    table("tdpm presets", [_row(name) for name in preset_names()])
    print_line(
        "parameters: millions, of model + discriminator; GFLOP: of one network call, and of training on one image"
    )
    print_line(
        "next: tdpm train --preset NAME --dry-run for memory, speed and time here; or tdpm presets NAME to read it"
    )


def _row(name: str) -> dict[str, str]:
    from tdpm_cli.config.schema import load_config
    from tdpm_cli.sampling.build import build_schedule, build_space

    config, stated = load_config(name), stated_by(name)
    schedule = build_schedule(config)
    model, discriminator = (stated["parameters"][key] / 1e6 for key in ("model", "discriminator"))
    classes = f", {config.condition.options['classes']} classes" if config.condition.name == "labels" else ""
    cost = stated.get("cost")
    return {
        "preset": name,
        "data": config.data.name + classes,
        "shape": _shape(build_space(config).raw_shape),
        "T, σ": f"{schedule.T}, {schedule.sigma(schedule.T):.2f}",
        "parameters": f"{model:.3g} + {discriminator:.3g}",
        "GFLOP": f"{cost['call_gflop']:g}, {cost['image_gflop']:g}" if cost else "–",
        "images": f"{config.train.duration / 1e6:g} M",
    }


def stated_by(name: str) -> Stated:
    """Read parameters and cost from the comments of a preset's file."""
    from tdpm_cli.config.presets import preset_path, read_yaml

    stated: Stated = {}
    for line in preset_path(name).read_text(encoding="utf-8").splitlines():
        if line.startswith(("# parameters:", "# cost:")):
            stated |= cast(Stated, read_yaml(line[2:], name))
    return stated


def _shape(raw_shape: Sequence[int]) -> str:
    """Write a shape such as 3×64²."""
    if len(raw_shape) == 3 and raw_shape[1] == raw_shape[2]:
        return f"{raw_shape[0]}×{raw_shape[1]}²"
    return "×".join(map(str, raw_shape))
