"""Presets, stored configs, manifests and sweeps of tdpm 0.1.0: maps their keys to the present keys."""

from collections.abc import Mapping

from tdpm_cli.config.types import PlainConfig, Value
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import Json

SECTIONS = {"game": "adversarial"}
KEYS: dict[tuple[str, str], str] = {  # (present section, key of 0.1.0) -> present key
    ("condition", "encoder"): "text_encoder",
    ("sample", "scale"): "guidance_scale",
    ("sample", "prior_scale"): "prior_guidance_scale",
    ("train", "phases"): "objective",
    ("train", "most_skipped"): "max_skipped_steps",
    ("train", "game_betas"): "adversarial_betas",
}
RECORD_KEYS = {  # key of 0.1.0 -> present key, in manifests, rows of a sweep and protocols
    "scale": "guidance_scale",
    "prior_scale": "prior_guidance_scale",
    "verb": "command",
    "asked": "condition",
    "given_sha256": "input_sha256",
}
RECORDS_INSIDE = ("protocol", "samples")  # keys of records inside a record
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


def upgrade_record(record: Mapping[str, Value]) -> Json:
    """Rename the keys of a manifest, a row of a sweep or a protocol that tdpm 0.1.0 wrote to the present keys.

    This includes its config and the records inside it. Any other record is returned unchanged.
    """
    upgraded: Json = {RECORD_KEYS.get(key, key): value for key, value in record.items()}
    for key in RECORDS_INSIDE:
        if isinstance(inside := upgraded.get(key), Mapping):
            upgraded[key] = upgrade_record(inside)
    if isinstance(config := upgraded.get("config"), Mapping):
        upgraded["config"] = upgrade(config)
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
