"""The JSON Schema of presets: current, true to every preset, and as strict as `load_config`."""

import json

import pytest
from jsonschema import Draft202012Validator

from tdpm_cli.config import load_config, registry
from tdpm_cli.config.constants import SECTIONS
from tdpm_cli.config.json_schema import json_schema
from tdpm_cli.config.presets import preset_folder, preset_names, read_yaml
from tdpm_cli.config.schema import SETTINGS
from tdpm_cli.config.settings import (
    AdversarialSettings,
    DenoiserConfig,
    EvalConfig,
    SampleConfig,
    StageConfig,
    TrainConfig,
)
from tdpm_cli.runtime.errors import InputError

FILE = preset_folder() / "schema.json"
FIRST_LINE = "# yaml-language-server: $schema=schema.json"


@pytest.fixture(scope="module")
def validator():
    Draft202012Validator.check_schema(json_schema())
    return Draft202012Validator(json_schema())


def test_the_file_is_current():
    assert json.loads(FILE.read_text()) == json_schema(), "run tdpm presets --schema > presets/schema.json"


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_validates_and_names_the_schema(name, validator):
    text = (preset_folder() / f"{name}.yaml").read_text()
    assert text.splitlines()[0] == FIRST_LINE
    assert [error.message for error in validator.iter_errors(read_yaml(text, name))] == []


DIGITS = read_yaml((preset_folder() / "digits.yaml").read_text(), "digits")


@pytest.mark.parametrize(
    ("section", "key", "value"),
    [
        ("train", "bacth", 4),
        ("train", "batch", "many"),
        ("train", "duration", "long"),
        ("backbone", "chanels", 4),
        ("backbone", "channels", 0),
        ("backbone", "name", "unett"),
        ("data", "pth", "x"),
        ("schedule", "truncate", {"sigmas": 0.5}),
        ("schedule", "truncate", {"step": 5, "sigma": 0.5}),
        ("sample", "sampler", "dim"),
        ("adversarial", "r1", -1),
        ("adversarial", "loss", "logistics"),
        ("train", "objective", "tdmp"),
        ("game", "r1", 1),
    ],
)
def test_the_schema_rejects_what_load_config_rejects(section, key, value, validator):
    preset = {**DIGITS, section: {**DIGITS.get(section, {}), key: value}}
    assert not validator.is_valid(preset)
    with pytest.raises(InputError):
        load_config(preset)


@pytest.mark.parametrize(("section", "key", "value"), [("train", "duration", "200k"), ("train", "ema", ["10k", 500])])
def test_the_schema_accepts_counts_with_units(section, key, value, validator):
    preset = {**DIGITS, section: {**DIGITS[section], key: value}}
    assert validator.is_valid(preset)
    assert load_config(preset).to_dict()[section][key] == {"200k": 200_000}.get(str(value), [10_000, 500])


STAGE = {"objective": "denoise", "duration": "100k", "denoiser_lr": 1e-3}


@pytest.mark.parametrize(
    ("change", "is_valid"),
    [
        ({}, True),
        ({"objective": "prior"}, True),
        ({"objective": "denoize"}, False),
        ({"duration": "long"}, False),
        ({"lr": 1e-3}, False),
        ({"cooldown": 2}, False),
    ],
)
def test_the_schema_checks_stages(change, is_valid, validator):
    train = {**DIGITS["train"], "stages": [STAGE | change]}
    assert validator.is_valid({**DIGITS, "train": train}) is is_valid


@pytest.mark.parametrize("key", sorted(STAGE.keys() - {"denoiser_lr"}))
def test_the_schema_requires_keys_of_stages(key, validator):
    train = {**DIGITS["train"], "stages": [{name: value for name, value in STAGE.items() if name != key}]}
    assert not validator.is_valid({**DIGITS, "train": train})


@pytest.mark.parametrize(("section", "key"), [("train", "objective"), ("adversarial", "loss")])
def test_the_schema_lists_names_and_aliases(section, key):
    listed = json_schema()["properties"][section]["properties"][key]["enum"]
    assert set(listed) == {*registry.names(key), *registry.aliases(key)}


@pytest.mark.parametrize(
    "model", [AdversarialSettings, DenoiserConfig, EvalConfig, SampleConfig, StageConfig, TrainConfig]
)
def test_every_field_is_described_in_one_line(model):
    for name, field in model.model_fields.items():
        assert field.description, name
        assert "\n" not in field.description, name


KINDS = {"data": "dataset"}  # section -> kind, where they differ


@pytest.mark.parametrize("section", [name for name in SECTIONS if name not in SETTINGS])
def test_every_component_is_in_the_schema(section):
    kind = KINDS.get(section, section)
    section = json_schema()["properties"][section]
    assert {case["if"]["properties"]["name"]["const"] for case in section["allOf"]} == set(registry.names(kind))
