"""Processes end with their parent: workers of pools, and the processes of --nproc."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tdpm_cli.config import load_config
from tdpm_cli.runtime.cores import cores

TDPM = [sys.executable, "-m", "tdpm_cli"]
ALONE = {key: value for key, value in os.environ.items() if key not in ("RANK", "WORLD_SIZE")}
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
needs_two_cores = pytest.mark.skipif(cores() < 2, reason="needs two CPU cores")
POOL = """
import time
from tdpm_cli.data.survey import in_processes
def work(data, chunk):
    time.sleep(1000)
list(in_processes(work, None, [[0], [1]], 2))
"""
BORN_LATE = """
import os, signal, sys
from tdpm_cli.runtime.parent import end_with_parent
end_with_parent(int(sys.argv[1]))
print("alive")
"""


def children(process):
    """The process ids of the children of a process."""
    try:
        return Path(f"/proc/{process}/task/{process}/children").read_text().split()
    except OSError:
        return []


def is_alive(process):
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def wait_until(condition, seconds=60):
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        time.sleep(0.01)
    return condition()


@contextlib.contextmanager
def started(command):
    process = subprocess.Popen(command, env=ALONE, start_new_session=True, stderr=subprocess.DEVNULL)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def kill_and_count_survivors(process, seconds):
    """Kill a process; return those of its children that are alive after some seconds, and kill them."""
    left = children(process.pid)
    process.kill()
    process.wait()
    wait_until(lambda: not any(map(is_alive, left)), seconds)
    survivors = [child for child in left if is_alive(child)]
    for child in survivors:
        os.kill(int(child), signal.SIGKILL)
    return survivors


@pytest.mark.parametrize("delay", [0, 0.01, 0.1, 1])
def test_workers_of_a_pool_end_with_their_parent(delay):
    with started([sys.executable, "-c", POOL]) as process:
        assert wait_until(lambda: len(children(process.pid)) == 2)
        time.sleep(delay)
        assert kill_and_count_survivors(process, 5) == []


@needs_two_cores
@pytest.mark.parametrize("delay", [0.3, 3, *(pytest.param(delay, marks=pytest.mark.slow) for delay in (0, 1))])
def test_processes_of_a_launcher_end_with_it_however_early(delay, tiny, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(load_config(tiny("train.duration=100M")).to_yaml())
    with started([*TDPM, "train", "--preset", preset, "--outdir", tmp_path, "--nproc", "2"]) as process:
        assert wait_until(lambda: len(children(process.pid)) == 2)
        time.sleep(delay)
        assert kill_and_count_survivors(process, 30) == []


def test_a_process_whose_parent_has_ended_ends_at_once():
    done = subprocess.run([sys.executable, "-c", BORN_LATE, str(os.getpid() + 1)], capture_output=True)
    assert (done.returncode, done.stdout) == (-signal.SIGKILL, b"")
    done = subprocess.run([sys.executable, "-c", BORN_LATE, str(os.getpid())], capture_output=True)
    assert (done.returncode, done.stdout) == (0, b"alive\n")


def listening(processes):
    """The local addresses, in hexadecimal, of the sockets on which processes listen."""
    sockets = set()
    for process in processes:
        with contextlib.suppress(OSError):
            sockets |= {os.readlink(path) for path in Path(f"/proc/{process}/fd").iterdir()}
    addresses = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                addresses.add(fields[1].partition(":")[0])
    return addresses


@needs_two_cores
def test_processes_of_one_machine_listen_on_its_loopback_interface_alone(tiny, tmp_path):
    preset = tmp_path / "tiny.yaml"
    preset.write_text(load_config(tiny("train.duration=100M")).to_yaml())
    command = [*TDPM, "train", "--preset", preset, "--outdir", tmp_path, "--name", "run", "--nproc", "2"]
    with started(command) as process:
        assert wait_until((tmp_path / "run" / "log.jsonl").exists, 120)
        addresses = listening([process.pid, *children(process.pid)])
        assert addresses, "the processes listen to each other"
        assert addresses <= {"0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F"}
        assert kill_and_count_survivors(process, 60) == []
    assert list((tmp_path / "run" / "checkpoints").iterdir()), "it was saved"
