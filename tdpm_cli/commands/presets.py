"""tdpm presets: what there is to train, and what is in it."""

from tdpm_cli import config as configuration
from tdpm_cli.assemble import assemble
from tdpm_cli.run.report import say, table


def presets(name: str | None = None) -> None:
    """List the presets with their sizes; or print one, comments and all. Raises InputError for an unknown name."""
    if name:
        print(configuration.preset_path(name).read_text(encoding="utf-8"), end="")
        say(f"next: tdpm train --preset {name}")
        return
    rows = []
    for known in configuration.preset_names():
        config = configuration.from_dict(configuration.read_preset(known))
        made = assemble(config, "meta")
        count = sum(parameter.numel() for parameter in made.model.parameters())
        rows.append(
            {
                "preset": known,
                "data": config.data.name,
                "shape": "×".join(map(str, made.space.shape)),
                "parameters": f"{count / 1e6:.3g} M",
                "truncation": made.schedule_text,
                "images": f"{config.train.duration / 1e6:g} M",
            }
        )
    table("tdpm presets", rows)
    say("next: tdpm train --preset digits, or tdpm presets NAME to read one")
