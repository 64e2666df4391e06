"""Failures to print end no work: readers that leave, full devices, closed streams, encodings without a character."""

import contextlib
import errno
import io
import json
import os
import subprocess
import sys

import pytest

from tdpm_cli.checkpoints.runs import list_checkpoints
from tdpm_cli.config import load_config
from tdpm_cli.runtime import console
from tdpm_cli.runtime.streams import Stream

TDPM = [sys.executable, "-m", "tdpm_cli"]
needs_full_device = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")


class Failing(io.StringIO):
    """A stream whose every use raises an error."""

    def __init__(self, error):
        super().__init__()
        self.failure = error

    def write(self, text):
        raise self.failure

    def flush(self):
        raise self.failure


@contextlib.contextmanager
def nobody():
    """The writing end of a pipe that nobody reads."""
    reading, writing = os.pipe()
    os.close(reading)
    yield writing
    os.close(writing)


@contextlib.contextmanager
def full_device():
    """A device without space."""
    with open("/dev/full", "w") as file:
        yield file


LISTENERS = [nobody, pytest.param(full_device, marks=needs_full_device)]


@pytest.mark.parametrize(
    ("failure", "is_reported"),
    [
        (BrokenPipeError(errno.EPIPE, "Broken pipe"), False),
        (OSError(errno.EIO, "Input/output error"), False),
        (OSError(errno.ENOSPC, "No space left on device"), True),
        (ValueError("I/O operation on closed file"), False),
        (BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable"), False),
    ],
)
def test_a_stream_that_fails_raises_nothing(failure, is_reported):
    stream = Stream(lambda: Failing(failure))
    assert stream.write("text") == 4
    stream.flush()
    assert (stream.error is not None) == is_reported
    assert (Stream(lambda: stream).write("x"), stream.isatty()) == (1, False)


def test_a_stream_that_is_absent_takes_text():
    stream = Stream(lambda: None)
    assert stream.write("text") == 4
    stream.flush()
    with pytest.raises(OSError, match="no such stream"):
        stream.fileno()


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "cp437", "utf-8"])
def test_characters_that_an_encoding_lacks_are_replaced(encoding):
    content = io.BytesIO()
    stream = Stream(lambda: file)
    file = io.TextIOWrapper(content, encoding)
    stream.write("σ ★ caf\udce9\n")
    stream.flush()
    assert (
        content.getvalue()
        .decode(encoding)
        .startswith("σ ★ caf?" if encoding == "utf-8" else ("σ" if encoding == "cp437" else "?"))
    )


@pytest.mark.parametrize("printing", [
    lambda: console.print_line("x"), lambda: console.table("x", [{"a": "b"}]), lambda: console.print_result("x"),
    lambda: console.summary_table("x", {"a": "b"}), lambda: console.ProgressBar("x", 1).advance(1),
])  # fmt: skip
def test_printing_never_raises(printing, monkeypatch):
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, Failing(OSError(errno.ENOSPC, "full")))
    monkeypatch.setattr(console.results, "error", None)
    printing()


@pytest.mark.parametrize("listener", LISTENERS)
def test_training_is_complete_though_nobody_listens(listener, tiny, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(load_config(tiny()).to_yaml())
    command = [*TDPM, "train", "--preset", str(preset), "--outdir", str(tmp_path), "--name", "run"]
    with listener() as stream:
        assert subprocess.run(command, stdout=stream, stderr=stream, timeout=200).returncode == 0
    assert int(list_checkpoints(tmp_path / "run")[-1].name) == 256


@pytest.mark.parametrize(("listener", "status"), [(nobody, 0), pytest.param(full_device, 2, marks=needs_full_device)])
@pytest.mark.parametrize("arguments", [["presets", "digits"], ["presets", "--schema"]])
def test_a_result_that_is_lost_is_reported_unless_its_reader_left(listener, status, arguments):
    with listener() as stream:
        done = subprocess.run([*TDPM, *arguments], stdout=stream, stderr=subprocess.PIPE, text=True)
    assert done.returncode == status, done.stderr
    assert ("standard output" in done.stderr) == (status == 2)
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("descriptor", [0, 1, 2])
def test_a_stream_that_is_closed_from_the_start_ends_nothing(descriptor):
    done = subprocess.run([*TDPM, "presets", "digits"], capture_output=True, preexec_fn=lambda: os.close(descriptor))
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("encoding", ["cp1252", "ascii"])
@pytest.mark.parametrize("arguments", [["presets"], ["presets", "nosuch★"], ["--help"]], ids=" ".join)
def test_every_encoding_prints(encoding, arguments, tmp_path):
    environment = {**os.environ, "PYTHONIOENCODING": encoding}
    done = subprocess.run([*TDPM, *arguments], capture_output=True, env=environment, cwd=tmp_path)
    text = (done.stdout + done.stderr).decode(encoding, "replace")
    assert done.returncode == (0 if arguments in (["presets"], ["--help"]) else 2), text
    assert "defect" not in text


def test_the_schema_is_complete():
    done = subprocess.run([*TDPM, "presets", "--schema"], capture_output=True, text=True)
    assert "properties" in json.loads(done.stdout)
