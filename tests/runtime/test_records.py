"""JSON beside images and runs is not trusted: damage is named."""

import json
import math
import shutil
from pathlib import Path

import pytest
from helpers import run_sweep, sample

from scripts.stress_tests.inputs import call
from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints import format as formats
from tdpm_cli.config.external import NOTHING
from tdpm_cli.evaluation.inputs import config_of, open_input
from tdpm_cli.evaluation.report import LogLine
from tdpm_cli.evaluation.sweep_report import SweepRow, csv_text, read_sweep, table_rows
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.records import Record, read_lines, read_record
from tdpm_cli.sampling.image_folder import read_manifest
from tdpm_cli.sampling.output import Manifest

WRONG = [7, 1 << 70, math.nan, "x", None, True, [], [None], {}, {"label": [-1]}]
NUMBERED = {f"{k}-{type(value).__name__}": value for k, value in enumerate(WRONG)}


def refusal(act):
    """Return the message with which a call refuses its input; None if it succeeds. No other error is accepted."""
    try:
        act()
    except InputError as error:
        return str(error)
    return None


every_wrong_value = pytest.mark.parametrize("wrong", NUMBERED.values(), ids=NUMBERED)


class Example(Record):
    number: int
    texts: list[str]


@pytest.mark.parametrize(
    ("content", "key"),
    [("{}", "number"), ('{"number": "1", "texts": []}', "number"), ('{"number": true, "texts": []}', "number"),
     ('{"number": 1, "texts": [2]}', r"texts\[0\]"), ("[]", ""), ("[" * 100_000, ""),
     ('{"number": 1' + "0" * 9999, "")],
)  # fmt: skip
def test_damage_is_named(tmp_path, content, key):
    path = tmp_path / "a.json"
    path.write_text(content)
    with pytest.raises(InputError, match=rf"a\.json.*damaged.*{key}.*; write it again$"):
        read_record(path, Example, "write it again")


def test_other_keys_are_kept(tmp_path):
    content = {"number": 1, "texts": ["a"], "other": [None]}
    (tmp_path / "a.json").write_text(json.dumps(content))
    assert read_record(tmp_path / "a.json", Example, "") == content


@pytest.mark.parametrize("line", ["7", "{", '{"seen": "a"}', '{"loss": 1}', '{"seen": 1, "loss": "a"}', '{"seen": -1}'])
def test_a_damaged_line_of_a_log_is_named(tmp_path, line):
    path = tmp_path / "log.jsonl"
    path.write_text(f'{{"seen": 1, "loss": NaN}}\n{line}\n')
    with pytest.raises(InputError, match=r"log\.jsonl, line 2: damaged"):
        read_lines(path, LogLine, "")
    path.write_text(f'{{"seen": 1, "loss": 2.5}}\n{line}')  # the last line is being written
    assert read_lines(path, LogLine, "") == [{"seen": 1, "loss": 2.5}]


@pytest.fixture(scope="module")
def drawn(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("drawn") / "samples"
    sample(out, 16, runs["points"])
    return out


@every_wrong_value
@pytest.mark.parametrize("key", [*Manifest.model_fields, "config.condition", "conditions.captions"])
def test_a_manifest_with_a_wrong_value_is_scored_or_named(drawn, tmp_path, key, wrong):
    folder = Path(shutil.copytree(drawn, tmp_path / "samples"))
    manifest = json.loads((folder / "samples.json").read_text())
    section, _, inner = key.partition(".")
    manifest[section] = {**(manifest[section] or {}), inner: wrong} if inner else wrong
    (folder / "samples.json").write_text(json.dumps(manifest))

    def read():
        samples = open_input("IMAGES", str(folder))
        samples.data[range(4)]
        config_of(samples, NOTHING)

    message = refusal(read)
    assert message is None or section in message


@pytest.mark.parametrize(
    ("key", "wrong"),
    [("model", 7), ("seed", None), ("config", []), ("conditions", {"label": ["a"]}), ("steps", "4"), ("spacing", [])],
)
def test_eval_names_a_wrong_value_in_a_manifest(drawn, tmp_path, key, wrong):
    folder = Path(shutil.copytree(drawn, tmp_path / "samples"))
    manifest = json.loads((folder / "samples.json").read_text())
    (folder / "samples.json").write_text(json.dumps({**manifest, key: wrong}))
    status, output = call(["eval", str(folder)])
    assert status == 2
    assert key in output


@pytest.fixture(scope="module")
def swept(runs, tmp_path_factory):
    out = tmp_path_factory.mktemp("swept")
    run_sweep([1], [runs["points"]], n=16, out=out)
    return json.loads((out / "sweep.json").read_text())


@every_wrong_value
@pytest.mark.parametrize("key", ["rows", *(f"rows.{key}" for key in SweepRow.model_fields)])
def test_a_sweep_with_a_wrong_value_is_read_or_named(swept, tmp_path, key, wrong):
    section, _, inner = key.partition(".")
    content = {section: [{**swept["rows"][0], inner: wrong}] if inner else wrong}
    path = tmp_path / "sweep.json"
    path.write_text(json.dumps(content))

    def read():
        if rows := read_sweep(path):
            assert csv_text(rows)
            assert table_rows(rows)

    message = refusal(read)
    assert message is None or ("sweep.json: damaged" in message and (inner or section) in message)


@every_wrong_value
@pytest.mark.parametrize("key", ["command", "model", "config", "steps", "sampler", "pictures", "spacing"])
def test_an_encoding_with_a_wrong_value_is_read_or_named(tmp_path, key, wrong):
    sound = {"command": "encode", "model": "x", "config": {}, "steps": 4, "spacing": 1.0, "guidance_scale": 1.0,
             "sampler": "ddim", "pictures": [{"source": "a", "label": None}]}  # fmt: skip
    path = tmp_path / "pictures.json"
    path.write_text(json.dumps(sound))
    assert read_manifest(tmp_path, "encode") == sound
    path.write_text(json.dumps({**sound, key: wrong}))
    message = refusal(lambda: read_manifest(tmp_path, "encode"))
    assert message is None or str(path) in message
    path.write_text(json.dumps({other: value for other, value in sound.items() if other != key}))
    with pytest.raises(InputError, match=r"pictures\.json"):
        read_manifest(tmp_path, "encode")


@every_wrong_value
@pytest.mark.parametrize("key", formats.State.model_fields)
def test_a_state_with_a_wrong_value_is_read_or_damaged(runs, tmp_path, key, wrong):
    folder = Path(shutil.copytree(checkpoint.newest(runs["points"]), tmp_path / "256"))
    state = json.loads((folder / formats.STATE).read_text())
    (folder / formats.STATE).write_text(json.dumps({**state, key: wrong}))
    message = refusal(lambda: formats.read_state(folder))
    assert message is None or key in message
