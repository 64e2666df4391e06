"""What stored configs name is opened only if it is confirmed: every key that names something, in every carrier."""

import json
import shutil
import sys
from dataclasses import MISSING, dataclass
from pathlib import Path

import pytest
import yaml
from helpers import folder_of, sample, score, tiny_image_preset

from scripts.stress_tests.inputs import call
from tdpm_cli.checkpoints import checkpoint, weights
from tdpm_cli.config import external, load_stored_config, registry
from tdpm_cli.config.external import Confirmation
from tdpm_cli.config.schema import load_config
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import sha256
from tdpm_cli.sampling import build
from tdpm_cli.training.config import Sources, training_config
from tdpm_cli.training.train import train

CANARY = "canary-of-external-names"
REQUIRED = {"shape": [3, 8, 8], "low": [3, 4, 4]}  # values of keys that some components need
SEEN: list[str] = []  # what Python opened, listed or connected to since a test began


def _watch(event, arguments):
    watched = ("open", "os.listdir", "os.scandir", "socket.getaddrinfo", "socket.connect")
    if event in watched and (event.startswith("socket") or CANARY in str(arguments[0])):
        SEEN.append(f"{event} {arguments[:2]}")


sys.addaudithook(_watch)


@dataclass(frozen=True)
class Named:
    """A key that names something, and the component that it belongs to."""

    section: str
    component: str
    key: str

    @property
    def full(self):
        return f"{self.section}.{self.key}"

    def section_with(self, value):
        """The section of a preset with this value."""
        keys = registry.keys(external.SECTIONS[self.section], self.component)
        needed = {key: REQUIRED[key] for key, one in keys.items() if one.default is MISSING and key != self.key}
        return {"name": self.component, **needed, self.key: value}


NAMED = [
    Named(section, name, key)
    for section, kind in external.SECTIONS.items()
    for name in registry.names(kind)
    for key in external.of_component(kind, name)
] + [Named("data", "images", "path")]
HUBS = ("data.hub", "space.autoencoder")
CASES = [pytest.param(named, is_hub, id=f"{named.full}-{named.component}-{'hub' if is_hub else 'path'}")
         for named in NAMED for is_hub in (False, True)
         if (named.full in HUBS if is_hub else named.full != "data.hub")]  # fmt: skip
OF_SAMPLES = [case for case in CASES if case.values[0].section in ("data", "space", "condition")]  # that `eval` builds
every_key = pytest.mark.parametrize(("named", "is_hub"), CASES)


@pytest.fixture
def value(tmp_path, is_hub):
    """A folder of a network whose tokenizer has code of its own; or a name on a hub."""
    if is_hub:
        return f"someone/{CANARY}"
    folder = tmp_path / CANARY
    folder.mkdir()
    for name in ("config.json", "tokenizer_config.json"):
        code = {"AutoTokenizer": ["code.Trap", None], "AutoModel": "code.Trap"}
        (folder / name).write_text(json.dumps({"auto_map": code, "model_type": "clip_text_model"}))
    (folder / "code.py").write_text("raise SystemExit(99)")
    return str(folder)


def changed(run, section, values):
    """Give a section of the config in a run's weights other values, and make the run's manifest agree."""
    path = checkpoint.newest_weights(run)
    tensors, header = weights.read_weights(path)
    config = {**json.loads(header["config"]), section: values}
    weights.write_tensors(path, tensors, header | {"config": json.dumps(config)})
    manifest = path.with_name("manifest.json")
    content = json.loads(manifest.read_text())
    content["files"][path.name] = {"size": path.stat().st_size, "sha256": sha256(path)}
    manifest.write_text(json.dumps(content, indent=1))
    stored = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**stored, section: values}))
    return path


@pytest.fixture
def run(runs, tmp_path):
    return Path(shutil.copytree(runs["points"], tmp_path / "run"))


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "samples"
    sample(out, 8, runs["points"])
    return out


def assert_rejected(named, value, act):
    SEEN.clear()
    with pytest.raises(InputError) as error:
        act()
    assert SEEN == []
    assert f"{named.full}={value}" in str(error.value)
    assert "--allow-external" in str(error.value)
    assert f"--set {named.full}" in str(error.value)


def use(named, model):
    """Open what the section of a stored config names."""
    return score(model=model, n=8) if named.section == "data" else build.load_model(model)


def test_every_key_of_a_preset_that_is_a_path_or_a_hub_is_marked():
    marked = external.keys()
    assert {named.full for named in NAMED} == set(marked)
    suspicious = ("path", "file", "folder", "hub", "weights", "autoencoder", "quarantine", "repo", "url", "program")
    for section, kind in external.SECTIONS.items():
        for name in registry.names(kind):
            for key in registry.keys(kind, name):
                is_marked = f"{section}.{key}" in marked or (section, key) == ("prior", "program")
                assert is_marked or not any(word in key for word in suspicious), f"{section}.{key} of {name}"


@every_key
@pytest.mark.parametrize("carrier", ["file", "run"])
def test_a_model_opens_nothing_that_it_names(run, named, value, carrier):
    path = changed(run, named.section, named.section_with(value))
    assert_rejected(named, value, lambda: use(named, run if carrier == "run" else path))


@pytest.mark.parametrize(("named", "is_hub"), OF_SAMPLES)
def test_samples_open_nothing_that_their_manifest_names(drawn, tmp_path, named, value):
    folder = Path(shutil.copytree(drawn, tmp_path / "samples"))
    manifest = json.loads((folder / "samples.json").read_text())
    manifest["config"][named.section] = named.section_with(value)
    (folder / "samples.json").write_text(json.dumps(manifest))
    assert_rejected(named, value, lambda: score(folder))


@every_key
def test_the_config_of_a_run_is_no_preset_of_the_user(run, named, value):
    changed(run, named.section, named.section_with(value))
    config = training_config(str(run / "config.yaml"), [], Sources())
    act = lambda: (build.open_dataset(config), build.build(config, "meta"))
    assert_rejected(named, value, act)


@pytest.mark.parametrize("key", external.of_training())
def test_the_config_of_a_run_names_no_model_to_start_from(run, tmp_path, key):
    stored = yaml.safe_load((run / "config.yaml").read_text())
    (run / "config.yaml").write_text(yaml.safe_dump({**stored, "train": {**stored["train"], key: CANARY}}))
    with pytest.raises(InputError, match=rf"train\.{key}={CANARY}.*--allow-external"):
        training_config(str(run / "config.yaml"), [], Sources())
    training_config(str(run / "config.yaml"), [], Sources(allow_external=True))
    training_config(str(run / "config.yaml"), [f"train.{key}={CANARY}"], Sources())


def test_the_models_to_start_from_are_marked():
    assert external.of_training() == ["init", "init_prior"]


@every_key
def test_a_preset_that_the_user_names_is_confirmed(tiny, tmp_path, named, value):
    path = tmp_path / "mine.yaml"
    plain = {**tiny(), named.section: named.section_with(value)}
    path.write_text(yaml.safe_dump({key: section for key, section in plain.items() if key != "preset"}))
    config = training_config(str(path), [], Sources())
    assert dict(config)[named.section].rejection is None


@every_key
@pytest.mark.parametrize("by", ["everything", "key", "memory"])
def test_what_the_user_confirms_is_accepted(tiny, named, value, by):
    plain = load_config({**tiny(), named.section: named.section_with(value)}).to_dict()
    if by == "memory":
        external.remember({named.full: value})
    assignments = [f"{named.full}={value}"] if by == "key" else []
    config = load_stored_config(plain, "x", Confirmation(by == "everything", assignments))
    assert dict(config)[named.section].rejection is None


def test_a_name_is_remembered_for_one_place(tmp_path, monkeypatch):
    for name in ("a", "b"):
        (tmp_path / name / "weights").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a")
    external.remember({"condition.weights": "weights"})
    assert external.is_remembered("condition.weights", "weights")
    assert external.is_remembered("condition.weights", str(tmp_path / "a" / "weights"))
    assert not external.is_remembered("space.autoencoder", "weights")
    monkeypatch.chdir(tmp_path / "b")
    assert not external.is_remembered("condition.weights", "weights")


@pytest.mark.parametrize("program", ["../../x", "/etc/passwd", "0" * 63, "A" * 64, "0" * 64, ""])
def test_a_program_is_named_by_its_hash_and_runs_only_where_it_is_trusted(run, program):
    path = changed(run, "prior", {"name": "torchscript", "program": program})
    with pytest.raises(InputError, match=rf"prior\.program is '?{program}"):
        build.load_model(path)


@pytest.mark.parametrize(
    ("component", "key"), [("coco", "split"), ("lsun", "category")], ids=["data.split", "data.category"]
)
@pytest.mark.parametrize("name", ["../x", "/x", "..", "a/b", ""])
def test_the_name_of_a_part_of_the_data_is_no_path(tiny, component, key, name):
    with pytest.raises(InputError, match=rf"data\.{key}"):
        load_config({**tiny(), "data": {"name": component, key: name}})


def test_a_trained_run_is_used_without_confirmation_and_a_moved_one_with_it(tmp_path, monkeypatch):
    data = folder_of(tmp_path / "data", [f"{k}.png" for k in range(8)], size=(8, 8), mode="L")
    settings = ["data.name=images", f"data.path={data}", "train.duration=16", "train.snapshot=16", "data.upscale=true"]
    run = train(load_config(tiny_image_preset(*settings)), tmp_path / "runs", "x")
    assert build.load_model(run).components.config.data.rejection is None
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another-machine"))
    assert build.load_model(run).components.config.data.rejection is not None  # `sample` needs no data
    confirmed = build.load_model(run, "cpu", Confirmation(assignments=[f"data.path={tmp_path}"])).components.config
    assert confirmed.data.rejection is None
    assert confirmed.data.path == tmp_path


def test_an_encoding_opens_no_model_that_it_names(runs, tmp_path, monkeypatch):
    images = folder_of(tmp_path / "images", ["0.png"], size=(8, 8), mode="L")
    status, output = call(
        ["encode", str(images), str(tmp_path / "x_T"), "--model", str(runs["images"]), "--steps", "2"]
    )
    assert status == 0, output
    status, output = call(["decode", str(tmp_path / "x_T"), str(tmp_path / "a"), "--steps", "2"])
    assert status == 0, output
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "another-machine"))
    status, output = call(["decode", str(tmp_path / "x_T"), str(tmp_path / "b")])
    assert status == 2
    assert "--model" in output
    assert "--allow-external" in output
    status, output = call(["decode", str(tmp_path / "x_T"), str(tmp_path / "b"), "--steps", "2", "--allow-external"])
    assert status == 0, output


@pytest.mark.parametrize(("assignment", "status"), [("data.path=nowhere", 0), ("backbone.width=8", 2), ("no.key=1", 2)])
def test_only_what_a_model_names_can_be_set(runs, tmp_path, assignment, status):
    actual, output = call(
        ["sample", "--model", str(runs["points"]), "--n", "4", str(tmp_path / "out"), "--set", assignment]
    )
    assert actual == status, output
    assert not status or assignment.partition("=")[0] in output
