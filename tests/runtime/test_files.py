import os

import pytest

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_json, read_regular


@pytest.mark.parametrize(
    ("content", "reason"), [(None, "no such file"), ("{", "damaged"), ("[1]", "damaged"), ("\x80", "damaged")]
)
def test_read_json_distinguishes_missing_from_damaged_files(tmp_path, content, reason):
    path = tmp_path / "a.json"
    if content is not None:
        path.write_text(content, encoding="latin-1")
    with pytest.raises(InputError, match=rf"a\.json: {reason}.*; create it$"):
        read_json(path, "create it")


def test_read_json_returns_the_object(tmp_path):
    (tmp_path / "a.json").write_text('{"a": [1]}')
    assert read_json(tmp_path / "a.json", "create it") == {"a": [1]}


def test_read_regular_reads_files_up_to_the_limit_and_through_links(tmp_path):
    (tmp_path / "a").write_bytes(bytes(10))
    (tmp_path / "link").symlink_to("a")
    assert read_regular(tmp_path / "a", 10) == read_regular(tmp_path / "link", 11) == bytes(10)


@pytest.mark.parametrize("name", ["fifo", "folder", "missing", "/dev/zero", "link", "large"])
def test_read_regular_rejects_other_files_at_once(tmp_path, name):
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("/dev/zero")
    with (tmp_path / "large").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(OSError):
        read_regular(tmp_path / name, 1 << 20)
