import pytest
import yaml
from pydantic import ValidationError

from tdpm_cli.config import load_config, presets
from tdpm_cli.config.presets import read_preset
from tdpm_cli.config.types import parse_count
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.sampling.build import build
from tdpm_cli.training.cost import cost_of


def rejection(*assignments, preset="digits"):
    with pytest.raises(InputError) as caught:
        build(load_config(preset, assignments), "meta")
    return str(caught.value)


@pytest.mark.parametrize("name", presets.preset_names())
def test_every_preset_builds_on_the_meta_device_and_round_trips(name):
    checked = load_config(name)
    components = build(checked, "meta")
    assert all(p.is_meta for p in components.model.parameters())
    assert load_config(yaml.safe_load(checked.to_yaml())) == checked


def stated(name, what):
    """What a comment of a preset states: its parameters or its cost; None without such a comment."""
    text = (presets.preset_folder() / f"{name}.yaml").read_text()
    comments = [yaml.safe_load(line[2:]) for line in text.splitlines() if line.startswith(f"# {what}:")]
    return comments[0][what] if comments else None


def costs():
    """The presets that state their cost; those of large networks take long to count."""
    for name in presets.preset_names():
        if cost := stated(name, "cost"):
            yield pytest.param(name, marks=[pytest.mark.slow] if cost["image_gflop"] > 30 else [])


@pytest.mark.parametrize("name", [*costs()])
def test_a_preset_states_its_cost(name):
    cost, expected = cost_of(load_config(name)), stated(name, "cost")
    assert expected["call_gflop"] == pytest.approx(cost.call_flops / 1e9, rel=0.01)
    assert expected["image_gflop"] == pytest.approx(cost.step_flops / 1e9, rel=0.01)
    assert expected["state_gib"] == pytest.approx(cost.state_bytes / 2**30, rel=0.01)
    assert expected["image_mib"] == pytest.approx(cost.activation_bytes / 2**20, rel=0.01)


def test_only_points_state_no_cost():
    assert all(name.startswith("toy") for name in presets.preset_names() if stated(name, "cost") is None)


@pytest.mark.parametrize("name", presets.preset_names())
def test_a_preset_states_its_parameter_counts_and_comments_every_value(name):
    text = (presets.preset_folder() / f"{name}.yaml").read_text()
    components = build(load_config(name), "meta")
    count = lambda net: sum(p.numel() for p in net.parameters())
    counts = {"model": count(components.model), "discriminator": count(components.discriminator)}
    assert stated(name, "parameters") == counts
    values = [line for line in text.splitlines() if ":" in line and not line.startswith("#") and line.startswith(" ")]
    assert [line for line in values if "#" not in line] == []


def test_defaults_are_filled_in_and_the_config_is_frozen():
    checked = load_config("digits")
    assert checked.to_dict()["backbone"]["dropout"] == 0.0
    with pytest.raises(ValidationError, match="frozen"):
        checked.train.batch = 3


@pytest.mark.parametrize(("text", "count"), [("200k", 200_000), ("2M", 2_000_000), ("1.5k", 1500), ("64", 64)])
def test_counts(text, count):
    assert parse_count(text) == count
    assert load_config("digits", [f"train.duration={text}"]).train.duration == count


def test_overrides():
    changed = lambda *a: load_config("digits", a)
    assert changed("train.denoiser_lr=2e-4").train.denoiser_lr == 2e-4
    assert changed("schedule.truncate.sigma=0.5").schedule.truncate == {
        "sigma": 0.5
    }  # replaced completely: no step remains
    assert changed("schedule.truncate=null", "prior.name=gaussian").schedule.truncate is None
    assert changed("prior.name=gaussian").discriminator is None
    renamed = changed("backbone.name=mlp", "discriminator.name=mlp")  # another name discards the keys of the section
    assert renamed.backbone.options == {"width": 128, "blocks": 3}
    assert changed("backbone.mult=[1, 1]").backbone.options["mult"] == [1, 1]


def test_extends_one_level(tmp_path):
    (tmp_path / "mine.yaml").write_text("extends: digits\ntrain: {batch: 32}\nprior: {name: copy}\n")
    checked = load_config(tmp_path / "mine.yaml")
    assert (checked.preset, checked.train.batch, checked.prior.name) == ("mine", 32, "copy")
    assert checked.backbone == load_config("digits").backbone
    (tmp_path / "typo.yaml").write_text("extnds: digits\n")
    with pytest.raises(InputError, match=r"typo\.yaml: no such section 'extnds'; did you mean 'extends'"):
        read_preset(str(tmp_path / "typo.yaml"))
    (tmp_path / "more.yaml").write_text(f"extends: {tmp_path / 'mine.yaml'}\n")
    with pytest.raises(InputError, match="one level"):
        read_preset(str(tmp_path / "more.yaml"))


@pytest.mark.parametrize(
    ("assignment", "parts_of_the_message"),
    [
        ("prior.z_dmi=3", ["prior.z_dmi", "no such key", "Accepted in prior: name."]),
        ("prior.nmae=copy", ["prior.nmae", "did you mean 'name'", "Accepted in prior: name."]),
        ("data.pth=x", ["data.pth", "did you mean 'path'", "Accepted in data: name, path."]),
        ("schedule.trunkate=null", ["did you mean 'truncate'", "Accepted in schedule: name, truncate, steps"]),
        (
            "backbone.chanels=3",
            ["backbone.chanels", "did you mean 'channels'", "Accepted in backbone: name, channels, mult"],
        ),
        ("backbone.channels=many", ["backbone.channels is 'many'", "must be a valid integer"]),
        ("backbone.channels=0", ["backbone.channels is 0", "greater than or equal to 1"]),
        ("backbone.channels=true", ["backbone.channels is True", "integer"]),
        ("backbone.mult=[1, two]", ["backbone.mult[1] is 'two'", "integer"]),
        ("backbone.dropout=1", ["backbone.dropout is 1", "less than 1"]),
        ("backbone.name=unett", ["backbone.name is 'unett'", "did you mean 'unet'", "Accepted: light-unet, mlp, unet"]),
        ("train.batch=64.5", ["train.batch is 64.5", "integer"]),
        ("train.duration=long", ["train.duration is 'long'", "integer"]),
        ("train.precision=fp8", ["train.precision is 'fp8'", "'auto', 'fp32' or 'bf16'"]),
        ("trian.batch=3", ["no such section 'trian'", "did you mean 'train'"]),
        ("train=3", ["section.key=value"]),
        ("train.batch", ["section.key=value"]),
        ("train.batch=[", ["--set train.batch=[", "not valid YAML"]),
        ("schedule.name=lineer", ["schedule.name is 'lineer'", "did you mean 'linear'"]),
        ("schedule.truncate.step=1001", ["schedule.truncate is {'step': 1001}", "accepted: 1 to 1000"]),
        ("schedule.truncate.step=0", ["accepted: 1 to 1000"]),
        ("schedule.truncate.sigma=1.5", ["sigma 1.5", "accepted: 0.01 to 0.9999"]),
        ("schedule.truncate.step=2.5", ["schedule.truncate.step is 2.5", "integer"]),
        ("schedule.truncate.sigmas=0.5", ["give one of step, sigma, log_snr"]),
        ("sample.steps=101", ["sample.steps is 101", "accepted: 1 to 100"]),
        ("sample.steps=0", ["sample.steps is 0", "greater than or equal to 1"]),
        ("sample.sampler=dim", ["sample.sampler is 'dim'", "did you mean 'ddim'", "dpmpp_2m"]),
        ("adversarial.start=10", ["adversarial.start", "the prior 'shared' learns", "prior.name=copy"]),
        ("denoiser.prediction=epsilon", ["denoiser.prediction is 'epsilon'", "'eps', 'x_0' or 'v'"]),
        ("condition.name=labels", ["condition.classes is missing"]),
        ("data.path=3", ["data.path is 3"]),
        ("train.denoiser_betas=[0.9, 1.0]", ["train.denoiser_betas[1] is 1.0", "less than 1"]),
        ("train.denoiser_betas=[0.9, 0.9, 0.9]", ["train.denoiser_betas is", "at most 2 items"]),
        ("train.denoiser_lr=.inf", ["train.denoiser_lr is inf", "finite"]),
        ("train.denoiser_lr=.nan", ["train.denoiser_lr is nan"]),
        ("train.seed=-1", ["train.seed is -1", "greater than or equal to 0"]),
        ("train.seed=99999999999999999999", ["train.seed is 99999999999999999999", "less than"]),
        ("train.duration=0", ["train.duration is 0", "equal to 1"]),
        ("train.ema=[10k, 10000]", ["train.ema is [10000, 10000]", "once"]),
        ("eval.features=inceptoin", ["eval.features is 'inceptoin'", "did you mean 'inception'"]),
        ("sample.options.eta=-1", ["sampler dpmpp_2m.eta: no such key", "Accepted in sampler dpmpp_2m: none"]),
        ("sample.spacing=0.5", ["sample.spacing is 0.5", "greater than or equal to 1"]),
        ("train.clip=hard", ["train.clip is 'hard'", "number"]),
        ("adversarial.mismatch=1.0", ["adversarial.mismatch is 1", "unconditional"]),
        ("sample.guidance_scale=2", ["sample.guidance_scale is 2", "unconditional"]),
    ],
)
def test_a_wrong_key_or_value_is_named_with_what_is_accepted(assignment, parts_of_the_message):
    message = rejection(assignment)
    for part in parts_of_the_message:
        assert part in message


@pytest.mark.parametrize(
    ("assignments", "key"),
    [
        (["train.flip=true"], r"train\.flip"),
        (["prior.name=shared-x0", "adversarial.start=10"], r"adversarial\.start.*'shared-x0'"),
        (["prior.name=copy", "adversarial.start=100M"], r"adversarial\.start.*train\.duration"),
    ],
)
def test_values_that_exclude_each_other_are_named(assignments, key):
    with pytest.raises(InputError, match=key):
        build(load_config("toy-mixture", assignments), "meta")


@pytest.mark.parametrize("section", ["condition", "prior", "schedule", "sample", "denoiser"])
def test_an_empty_section_counts_as_absent(section):
    assert load_config({**read_preset("digits"), section: None}).condition.name == "none"


@pytest.mark.parametrize(("section", "values"), [("data", None), ("discriminator", {})])
def test_a_required_section_must_be_there(section, values):
    with pytest.raises(InputError, match=section):
        load_config({**read_preset("digits"), section: values})


def test_a_prior_that_learns_nothing_needs_no_discriminator():
    plain = {**read_preset("digits"), "discriminator": {}, "prior": {"name": "gaussian"}}
    assert load_config(plain).discriminator is None


def test_a_section_must_have_keys():
    with pytest.raises(InputError, match=r"data is 'digits'"):
        presets.overlay({"data": "digits"}, "data", {"path": "x"})


@pytest.mark.parametrize(
    ("name", "suggested"),
    [
        ("digit", ["digits"]),
        ("toy", ["toy-gaussians25", "toy-mixture", "toy-swissroll"]),
        ("", []),
        ("../presets/digits", []),
    ],
)
def test_an_unknown_preset_gets_the_nearest(name, suggested):
    with pytest.raises(InputError, match="preset") as caught:
        read_preset(name)
    assert [known for known in suggested if repr(known) not in str(caught.value)] == []


@pytest.mark.parametrize(
    "text", ["[1, 2", "- a\n- b\n", "train: 3\ndata: {name: digits}\nbackbone: {name: mlp}\n", "{}"]
)
def test_a_file_that_is_no_preset_is_rejected(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text)
    with pytest.raises(InputError):
        load_config(path)


def test_yaml_executes_nothing(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(f"data: !!python/object/apply:os.system ['touch {tmp_path}/executed']\n")
    with pytest.raises(InputError, match="not valid YAML"):
        read_preset(str(path))
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("data: {name: digits}\ndata: {name: points}", "data"),
        ("train:\n  batch: 1\n  lr: 1\n  batch: 2", "batch"),
        ("train: {batch: 1, batch: 1}", "batch"),
        ("schedule: {truncate: {step: 1, step: 2}}", "step"),
        ('train: {batch: 1, "batch": 2}', "batch"),
    ],
)
def test_a_key_that_occurs_twice_is_rejected(tmp_path, text, key):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=rf"a\.yaml: .*line \d+ .*'{key}'"):
        load_config(tmp_path / "a.yaml")


@pytest.mark.parametrize("text", ["[1]: 2\n[1]: 3", "? {a: 1}\n: 2"])
def test_a_key_that_is_no_text_is_rejected(tmp_path, text):
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml"):
        load_config(tmp_path / "a.yaml")
