import pytest

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import read_json


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
