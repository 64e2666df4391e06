"""Start the same command in several processes on this machine, and end all of them together."""

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from types import FrameType

from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.cores import cores
from tdpm_cli.runtime.distributed import PeerLost, enough_devices
from tdpm_cli.runtime.parent import PARENT
from tdpm_cli.runtime.signals import catch, restore

GRACE_SECONDS = 10.0  # for the others to end by themselves after one has failed
INTERRUPTED = (130, 143)
FINAL = (0, 2, *INTERRUPTED)  # statuses after which a restart is useless: success, wrong input, interruption
MESSAGES = "TDPM_MESSAGES"  # the folder where processes write their last message


def is_launched() -> bool:
    """Return whether this process was started by `launch` or by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(count: int, max_restarts: int = 0) -> int:
    """Run this command line in `count` processes, and return its exit status.

    If one fails, end all of them and restart, at most `max_restarts` times: training resumes from its last checkpoint.

    Raises InputError for more processes than devices.
    """
    enough_devices(count)
    for restart in range(max_restarts + 1):
        status = _Group(count).run()
        if status in FINAL or restart == max_restarts:
            return status
        print_line(f"a process failed; restarting all of them ({restart + 1} of {max_restarts})")
    return status


class _Group:
    """The processes of one attempt."""

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self) -> int:
        with tempfile.TemporaryDirectory() as messages:
            self.ended: set[int] = set()  # the ranks of those that this process ended
            self.processes = [self._start(rank, messages) for rank in range(self.count)]
            before = catch(self._forward)
            try:
                return self._wait(Path(messages))
            finally:
                restore(before)

    def _start(self, rank: int, messages: str) -> "subprocess.Popen[bytes]":
        if rank == 0:
            self.port = _free_port()
        threads = max(cores() // self.count, 1)
        environment = {
            "OMP_NUM_THREADS": str(threads), **os.environ, MESSAGES: messages, PARENT: str(os.getpid()),
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.count), "LOCAL_WORLD_SIZE": str(self.count),
        }  # fmt: skip
        # In sessions of their own, so that Ctrl-C reaches the launcher alone, which forwards every signal once.
        return subprocess.Popen(sys.orig_argv, env=environment, start_new_session=True)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _wait(self, messages: Path) -> int:
        """Wait until all have ended. After a failure the others get GRACE_SECONDS. After an interruption, which reaches
        all, they get the time they need: the first process saves after the others have ended."""
        deadline, hard = float("inf"), False
        while any(process.poll() is None for process in self.processes):
            failed = [process for process in self.processes if process.poll() not in (None, 0, *INTERRUPTED)]
            if failed and deadline == float("inf"):
                deadline = time.monotonic() + GRACE_SECONDS
            if time.monotonic() > deadline:
                for rank, process in enumerate(self.processes):
                    if process.poll() is None:
                        self.ended.add(rank)
                        process.kill() if hard else process.terminate()
                deadline, hard = time.monotonic() + GRACE_SECONDS, True
            time.sleep(0.05)
        return self._status(messages)

    def _status(self, messages: Path) -> int:
        """Print the last message of each process, equal ones once, and return the status of the first cause."""
        statuses = {rank: process.returncode for rank, process in enumerate(self.processes)}
        failed = {rank: status for rank, status in statuses.items() if status}
        causes = {
            rank: status for rank, status in failed.items() if status != PeerLost.status and rank not in self.ended
        }
        reported = causes or {rank: status for rank, status in failed.items() if rank not in self.ended} or failed
        ranks_by_text: dict[str, list[int]] = {}
        for rank, status in reported.items():
            path = messages / str(rank)
            text = path.read_text(encoding="utf-8") if path.is_file() else f"error: ended with {_status_text(status)}"
            ranks_by_text.setdefault(text, []).append(rank)
        for text, ranks in ranks_by_text.items():
            everyone = len(ranks) == self.count
            print_line(text if everyone else f"process {', '.join(map(str, ranks))} of {self.count}: {text}")
        status = next(iter(reported.values()), 0)
        return status if status >= 0 else 1


def _status_text(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
