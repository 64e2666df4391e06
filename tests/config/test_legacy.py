"""Files that tdpm 0.1.0 wrote are read; presets with its keys get a message with the keys of today."""

from pathlib import Path

import numpy as np
import pytest
from helpers import sample
from PIL import Image

from tdpm_cli.config import load_config, load_stored_config
from tdpm_cli.config.legacy import upgrade_record
from tdpm_cli.config.presets import read_yaml
from tdpm_cli.runtime.errors import InputError

OLD = Path(__file__).parents[1] / "data-0.1.0"  # a model with labels, its config, and 16 images that 0.1.0 drew of it


def test_a_model_of_0_1_0_draws_the_same_images(tmp_path):
    sample(tmp_path / "out", 16, OLD / "labels.safetensors", steps=4, seed=0, guidance_scale=1.5)
    drawn, expected = sorted((tmp_path / "out").glob("*.png")), sorted((OLD / "images").glob("*.png"))
    assert [path.name for path in drawn] == [path.name for path in expected]
    for path, other in zip(drawn, expected, strict=True):
        difference = np.array(Image.open(path)).astype(int) - np.array(Image.open(other)).astype(int)
        assert abs(difference).max() <= 1, path.name


def test_a_stored_config_of_0_1_0_is_converted():
    plain = read_yaml((OLD / "config.yaml").read_text(), "config.yaml")
    config = load_stored_config(plain)
    assert config.adversarial.r1 == plain["game"]["r1"]
    assert config.train.adversarial_betas == plain["train"]["game_betas"]
    assert config.train.max_skipped_steps == plain["train"]["most_skipped"]
    assert config.train.objective == "tdpm"
    assert config.sample.guidance_scale == plain["sample"]["scale"]
    assert config.sample.prior_guidance_scale == plain["sample"]["prior_scale"]


def test_a_record_of_0_1_0_is_converted():
    plain = read_yaml((OLD / "config.yaml").read_text(), "config.yaml")
    record = upgrade_record({
        "verb": "encode", "asked": ["3"], "given_sha256": "a", "scale": 2.0, "prior_scale": 1.5, "steps": 4,
        "protocol": {"samples": {"scale": 2.0}}, "config": plain,
    })  # fmt: skip
    assert {key: record[key] for key in ("command", "condition", "input_sha256")} == {
        "command": "encode", "condition": ["3"], "input_sha256": "a",
    }  # fmt: skip
    assert (record["guidance_scale"], record["prior_guidance_scale"], record["steps"]) == (2.0, 1.5, 4)
    assert record["protocol"] == {"samples": {"guidance_scale": 2.0}}
    assert record["config"]["sample"]["guidance_scale"] == plain["sample"]["scale"]
    assert upgrade_record(record) == record


def test_a_stored_config_of_today_is_unchanged():
    config = load_config("digits")
    assert load_stored_config(config.to_dict()) == config


def test_a_preset_with_old_keys_gets_one_message_with_the_new_ones():
    with pytest.raises(InputError) as caught:
        load_config(OLD / "config.yaml")
    for new in ("adversarial", "train.objective=tdpm", "train.adversarial_betas", "train.max_skipped_steps",
                "sample.guidance_scale", "sample.prior_guidance_scale"):  # fmt: skip
        assert new in str(caught.value)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("game.r1=1", "adversarial"),
        ("condition.encoder=minilm", "condition.text_encoder"),
        ("sample.scale=2", "sample.guidance_scale"),
        ("sample.prior_scale=2", "sample.prior_guidance_scale"),
        ("train.phases=prior", "train.objective"),
        ("train.most_skipped=3", "train.max_skipped_steps"),
        ("train.game_betas=[0, 1]", "train.adversarial_betas"),
        ("schedule.name=jsd", "linear"),
        ("schedule.name=constant", "linear"),
    ],
)
def test_an_option_with_an_old_key_names_the_new_one(old, new):
    with pytest.raises(InputError, match=r"0\.2\.0") as caught:
        load_config("digits", [old])
    assert new in str(caught.value)
