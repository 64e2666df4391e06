"""A cache never ends work: damage is recomputed, and a place that cannot be written is left out."""

import json
import os

import pytest

from tdpm_cli.runtime.caches import cached
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.signals import Interrupted

DAMAGE = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "binary": lambda path: path.write_bytes(bytes(range(256))),
    "other JSON": lambda path: path.write_text('{"a": [null, 1e999]}'),
    "nested": lambda path: path.write_text("[" * 100_000),
    "folder": lambda path: (path.unlink(), path.mkdir()),
    "fifo": lambda path: (path.unlink(), os.mkfifo(path)),
    "dangling link": lambda path: (path.unlink(), path.symlink_to(path.parent / "missing")),
}


def read(path):
    return [int(value) for value in json.loads(path.read_text())]


def look_up(path, value):
    return cached(path, read, lambda: value, lambda path, value: write_text(path, json.dumps(value)))


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_file_is_computed_again(tmp_path, damage):
    path = tmp_path / "cache" / "a.json"
    assert look_up(path, [1]) == look_up(path, [2]) == [1]
    DAMAGE[damage](path)
    assert look_up(path, [3]) == [3]
    assert look_up(path, [4]) == ([4] if damage == "folder" else [3])


def test_a_cache_that_cannot_be_written_is_left_out(tmp_path):
    (tmp_path / "file").write_text("")
    assert look_up(tmp_path / "file" / "a.json", [1]) == [1]
    assert look_up(tmp_path / "file" / "a.json", [2]) == [2]


def test_a_signal_ends_the_reading_of_a_cache(tmp_path):
    def stopped(path):
        raise Interrupted(15, "stopped")

    (tmp_path / "a").write_text("")
    with pytest.raises(Interrupted):
        cached(tmp_path / "a", stopped, lambda: 1, lambda path, value: None)
