"""Files that tdpm did not write stay as they are: links, files at the places of locks, and temporary names."""

import os
from contextlib import nullcontext, suppress

import pytest

from tdpm_cli.runtime import files, grids
from tdpm_cli.runtime.console import Log
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import name_of_partial, replacing, staging, write_text
from tdpm_cli.runtime.locks import WorkLocks, lock_run

PRECIOUS = "precious\n"


def take_run_lock(path):
    with lock_run(path.parent):
        pass


WRITERS = {  # the name of what is written -> how; all but the first two may replace a link by a file
    "lock": take_run_lock,
    ".locks": lambda path: WorkLocks(path).close(done=True),
    "samples.json": lambda path: write_text(path, "{}"),
    "grid.png": lambda path: grids.save(grids.Image.new("L", (1, 1)), path),
    "log.jsonl": lambda path: Log(path.parent, 0).write(1, {"a": 1.0}),
}


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "fifo", "file"])
@pytest.mark.parametrize("name", WRITERS)
def test_what_is_at_the_place_of_a_file_of_tdpm_is_not_changed(tmp_path, name, kind):
    precious, path = tmp_path / "precious.txt", tmp_path / "run" / name
    path.parent.mkdir()
    precious.write_text(PRECIOUS)
    if kind == "link":
        path.symlink_to(precious)
    elif kind == "dangling link":
        path.symlink_to(tmp_path / "missing")
    elif kind == "hard link":
        path.hardlink_to(precious)
    elif kind == "fifo":
        os.mkfifo(path)
    else:
        path.write_text(PRECIOUS)
    owned = name in ("lock", ".locks")
    with pytest.raises(InputError, match=name) if owned else suppress(InputError):
        WRITERS[name](path)
    assert precious.read_text() == PRECIOUS
    assert not (tmp_path / "missing").exists()
    assert not owned or os.path.lexists(path)
    assert kind != "file" or not owned or path.read_text() == PRECIOUS


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("writer", [replacing, staging])
@pytest.mark.parametrize("name", ["model.onnx", "é" * 127, "a" * 255])
def test_temporary_names_are_new_and_removed(tmp_path, name, writer, fails):
    others = [f"{name[:100]}.part", "model.part.onnx", f"{name[:100]}.{os.getpid()}.part"]
    for other in others:
        (tmp_path / other).mkdir(exist_ok=True)
    with pytest.raises(KeyError) if fails else nullcontext():  # noqa: SIM117
        with writer(tmp_path / name) as part:
            assert part.name not in others
            part.write_text("new")
            assert not (tmp_path / name).exists()
            if fails:
                raise KeyError
    assert {path.name for path in tmp_path.iterdir()} == {*others, *([] if fails else [name])}
    assert fails or (tmp_path / name).stat().st_mode & 0o777 == 0o666 & ~umask()


def umask():
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.parametrize(
    ("name", "complete"),
    [
        ("000001.png.0123abcd.part", "000001.png"),
        ("000001.png.4711.part", "000001.png"),
        ("000001.png.part", None),
        ("000001.png-notes.part", None),
        (".0123abcd.part", None),
        ("000001.png", None),
    ],
)
def test_temporary_files_are_recognized(name, complete):
    assert name_of_partial(name) == complete


def test_a_killed_process_leaves_a_name_that_is_recognized(tmp_path):
    with suppress(KeyError), replacing(tmp_path / "a.png") as part:
        assert name_of_partial(part.name) == "a.png"
        raise KeyError


def test_a_file_of_locks_is_removed_by_its_last_user(tmp_path, monkeypatch):
    mine = WorkLocks(tmp_path / ".locks")
    (tmp_path / ".locks").unlink()  # another process has finished
    with mine.beginning():
        assert (tmp_path / ".locks").exists(), "the file was opened again"
    monkeypatch.setattr(mine, "acquire", lambda *arguments: False)  # another process still works
    mine.close(done=True)
    assert (tmp_path / ".locks").exists()


def test_a_file_of_tdpm_is_closed_when_it_is_rejected(tmp_path):
    (tmp_path / "a").mkdir()
    with pytest.raises(InputError, match="a: "):
        files.open_owned(tmp_path / "a", os.O_RDWR)
