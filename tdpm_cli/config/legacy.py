"""Presets and stored configs of tdpm 0.1.0: maps their keys to the present keys."""

from collections.abc import Mapping

from tdpm_cli.config.types import PlainConfig, Value
from tdpm_cli.runtime.errors import InputError

SECTIONS = {"game": "adversarial"}
KEYS: dict[tuple[str, str], str] = {  # (present section, key of 0.1.0) -> present key
    ("condition", "encoder"): "text_encoder",
    ("sample", "scale"): "guidance_scale",
    ("sample", "prior_scale"): "prior_guidance_scale",
    ("train", "phases"): "objective",
    ("train", "most_skipped"): "max_skipped_steps",
    ("train", "game_betas"): "adversarial_betas",
}
VALUES = {("train", "objective"): {"all": "tdpm"}}
REMOVED_SCHEDULES = ("jsd", "constant")


def upgrade(plain: Mapping[str, Value]) -> PlainConfig:
    """Rename the keys of a config that tdpm 0.1.0 stored to the present keys; return any other config unchanged."""
    upgraded: PlainConfig = {}
    for name, values in plain.items():
        section = SECTIONS.get(name, name)
        if not isinstance(values, Mapping):
            upgraded[section] = values
            continue
        renamed: PlainConfig = {KEYS.get((section, str(key)), str(key)): value for key, value in values.items()}
        for key, value in renamed.items():
            meanings = VALUES.get((section, key), {})
            renamed[key] = meanings.get(value, value) if isinstance(value, str) else value
        upgraded[section] = renamed
    return upgraded


def refuse(plain: Mapping[str, Value], where: str) -> None:
    """Raise InputError, naming the present keys, for a preset or an option that uses keys of 0.1.0."""
    renamed: dict[str, str] = {}
    for name, values in plain.items():
        section = SECTIONS.get(name, name)
        if section != name:
            renamed[name] = section
        for key, value in values.items() if isinstance(values, Mapping) else ():
            new = KEYS.get((section, key))
            if new is not None:
                meanings = VALUES.get((section, new), {})
                advice = f"={meanings[value]}" if isinstance(value, str) and value in meanings else ""
                renamed[f"{name}.{key}"] = f"{section}.{new}{advice}"
    if renamed:
        listed = ", ".join(f"{old} is now {new}" for old, new in renamed.items())
        raise InputError(f"{where}: tdpm 0.2.0 renamed keys: {listed}")
    schedule = plain.get("schedule")
    if isinstance(schedule, Mapping) and schedule.get("name") in REMOVED_SCHEDULES:
        raise InputError(f"{where}: schedule.name is {schedule['name']!r}, which tdpm 0.2.0 removed; use linear")
