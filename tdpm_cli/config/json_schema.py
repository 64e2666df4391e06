"""The JSON Schema of presets, for editors that complete and check YAML. Written by `tdpm presets --schema`."""

from dataclasses import MISSING

from pydantic import TypeAdapter
from pydantic.json_schema import JsonSchemaValue as Schema

from tdpm_cli.config import registry
from tdpm_cli.config.constants import SECTIONS
from tdpm_cli.config.schema import REQUIRED, SETTINGS, UNITS
from tdpm_cli.config.signatures import Key

NAMES = {  # keys whose value names a component -> its kind
    ("condition", "text_encoder"): "text_encoder",
    ("adversarial", "loss"): "loss",
    ("train", "objective"): "objective",  # of the section and of its stages
    ("sample", "sampler"): "sampler",
    ("eval", "features"): "features",
}
SHARED_KEYS = {  # keys that several components share; a component's own description takes precedence
    "split": "Part of the dataset, such as train or test.",
    "download": "Download the dataset if it is missing.",
    "quarantine": "List of files to skip, as `tdpm data verify` writes it.",
    "crop": "How images of another shape are cropped.",
    "upscale": "Enlarge images that are too small.",
    "uncaptioned": "What to do with images that have no caption.",
    "seed": "Seed of the data.",
    "category": "Category of the dataset.",
    "window": "Shards that are read at a time.",
    "dim": "Length of vectors.",
    "low": "Shape [C, H, W] of the images to enlarge.",
    "tokens": "Maximum tokens of a caption.",
    "text_encoder": "Network that encodes captions.",
    "weights": "Folder of the text encoder's weights.",
    "templates": "Captions to make of class names, with {class} for the name.",
    "names": "Names of the classes.",
    "counts": "Training examples of each class, which a run records.",
    "examples": "Captions from which samples are drawn.",
    "dropout": "Fraction dropped at random in training.",
    "steps": "Steps of the untruncated schedule.",
    "beta_start": "First beta of the schedule.",
    "beta_end": "Last beta of the schedule.",
    "offset": "Offset of the cosine near t = 0.",
    "blocks": "Residual blocks in each level.",
    "resample": "How the network changes resolution.",
    "latent": "Length of the latent vector.",
    "layers": "Layers of the mapping network.",
    "channel_base": "Channels at height h are at most this over h.",
    "channel_max": "Maximum channels of a layer.",
}
PURPOSES = {
    "data": "The dataset, and where its files are.",
    "space": "The space in which the model works, and its shape.",
    "condition": "What generation is conditioned on.",
    "schedule": "The noise schedule, and where it is truncated.",
    "backbone": "The network of the denoiser.",
    "prior": "What generates x_T, the noisy data at the truncation point.",
    "discriminator": "The network that the prior is trained against.",
    "encoder": "The network that infers z from data, for the objective likelihood.",
}


def json_schema() -> Schema:
    """Return the JSON Schema (draft 2020-12) of a preset: every section, key, type, range, default and description."""
    sections = {section: _section(section) for section in SECTIONS}
    definitions = {name: value for schema in sections.values() for name, value in schema.pop("$defs", {}).items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "tdpm preset",
        "type": "object",
        "additionalProperties": False,
        "properties": {
            "extends": {"type": "string", "description": "Preset whose values apply where this one has none."},
            "preset": {"type": "string", "description": "Name of the preset, in a run's config.yaml."},
            **sections,
        },
        "$defs": definitions,
        "if": {"not": {"required": ["extends"]}},
        "then": {"required": list(REQUIRED)},
    }


def _section(section: str) -> Schema:
    return _settings(section) if section in SETTINGS else _components(section)


def _settings(section: str) -> Schema:
    schema = _without_titles(SETTINGS[section].model_json_schema())
    schema.pop("required", None)  # a preset that extends another may leave any key out
    for model in (schema, *schema.get("$defs", {}).values()):
        _list_names(section, model["properties"])
    return {**schema, "type": ["object", "null"]}


def _list_names(section: str, keys: Schema) -> None:
    """Restrict the keys that name a component to the names of its kind."""
    for key, value in keys.items():
        if kind := NAMES.get((section, key)):
            value["enum"] = _names(kind)


def _names(kind: str) -> list[str]:
    """Return the names and aliases of a kind."""
    return [*registry.names(kind), *registry.aliases(kind)]


def _components(section: str) -> Schema:
    """The schema of a section that names a component: the name decides which keys are accepted."""
    kind = "dataset" if section == "data" else section
    names = registry.names(kind)
    common = _common(section)
    each = [
        {
            "if": {"properties": {"name": {"const": name}}, "required": ["name"]},
            "then": {
                "description": registry.summary(kind, name),
                "properties": {"name": True, **dict.fromkeys(common, True), **_keys(section, kind, name)},
                "additionalProperties": False,
            },
        }
        for name in names
    ]
    described = " ".join(f"{name}: {registry.summary(kind, name)}" for name in names)
    return {
        "description": PURPOSES[section],
        "type": ["object", "null"],
        "properties": {"name": {"enum": _names(kind), "description": described}, **common},
        "allOf": each,
    }


def _common(section: str) -> Schema:
    """Keys of a section that do not belong to a component."""
    if section == "data":
        return {"path": {"type": ["string", "null"], "description": "File or folder of the data."}}
    if section == "schedule":
        units = [
            {"type": "object", "properties": {unit: {"type": "integer" if unit == "step" else "number"}},
             "required": [unit], "additionalProperties": False}
            for unit in UNITS
        ]  # fmt: skip
        return {"truncate": {"description": "Truncation point, in one unit.", "oneOf": [*units, {"type": "null"}]}}
    return {}


def _keys(section: str, kind: str, name: str) -> Schema:
    keys = {key: _key(value, SHARED_KEYS.get(key, "")) for key, value in registry.keys(kind, name).items()}
    _list_names(section, keys)
    return keys


def _key(key: Key, shared: str) -> Schema:
    schema = _without_titles(TypeAdapter[object](key.type).json_schema())
    if key.default is not MISSING:
        schema["default"] = key.default
    if description := key.help or shared:
        schema["description"] = description
    return schema


def _without_titles(schema: Schema) -> Schema:
    """Remove the titles that pydantic adds, which repeat the names of keys."""
    return {
        key: {name: _untitled(inner) for name, inner in value.items()} if key == "properties" else _untitled(value)
        for key, value in schema.items()
        if key != "title"
    }


def _untitled(value: object) -> object:
    if isinstance(value, dict):
        return _without_titles(value)
    return [_untitled(item) for item in value] if isinstance(value, list) else value
