"""tdpm presets: what there is to train, and what is in it."""

from collections.abc import Sequence
from typing import Any

from tdpm_cli.config import load_config
from tdpm_cli.config.presets import preset_names, preset_path, read_yaml
from tdpm_cli.runtime.console import say, table
from tdpm_cli.sampling.build import build_schedule, build_space


def presets(name: str | None = None) -> None:
    """List the presets with size and cost; or print one, comments and all. Raises InputError for an unknown name."""
    if name:
        print(preset_path(name).read_text(encoding="utf-8"), end="")
        say(f"next: tdpm train --preset {name}")
        return
    rows = []
    for known in preset_names():
        config = load_config(known)
        stated = _stated(known)
        model, discriminator = (stated["parameters"][key] / 1e6 for key in ("model", "discriminator"))
        schedule = build_schedule(config)
        classes = f", {config.condition.options['classes']} classes" if config.condition.name == "labels" else ""
        cost = stated.get("cost")
        rows.append(
            {
                "preset": known,
                "data": config.data.name + classes,
                "shape": _shape(build_space(config).raw_shape),
                "T, σ": f"{schedule.T}, {schedule.sigma(schedule.T):.2f}",
                "parameters": f"{model:.3g} + {discriminator:.3g}",
                "GFLOP": f"{cost['call_gflop']:g}, {cost['image_gflop']:g}" if cost else "–",
                "images": f"{config.train.duration / 1e6:g} M",
            }
        )
    table("tdpm presets", rows)
    say("parameters: millions, of model + discriminator; GFLOP: of one network call, and of training on one image")
    say("next: tdpm train --preset NAME --dry-run for memory, speed and time here; or tdpm presets NAME to read it")


def _shape(raw_shape: Sequence[int]) -> str:
    """Such as 3×64², for squares."""
    if len(raw_shape) == 3 and raw_shape[1] == raw_shape[2]:
        return f"{raw_shape[0]}×{raw_shape[1]}²"
    return "×".join(map(str, raw_shape))


def _stated(name: str) -> dict[str, Any]:
    """What the head of a preset's file says of its cost; tests hold it against the networks."""
    stated: dict[str, Any] = {}
    for line in preset_path(name).read_text(encoding="utf-8").splitlines():
        if line.startswith(("# parameters:", "# cost:")):
            stated |= read_yaml(line[2:], name)
    return stated
