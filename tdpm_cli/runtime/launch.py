"""Start the same command in several processes on this machine, and end as one."""

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

from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.distributed import PeerLost, enough_devices
from tdpm_cli.runtime.signals import SIGNALS

GRACE = 10.0  # seconds that the others have to end by themselves when one has failed
INTERRUPTED = (130, 143)
FINAL = (0, 2, *INTERRUPTED)  # statuses after which starting again would not help: done, the user's input, interrupted
LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo"} if sys.platform == "linux" else {}  # needs no name of this machine
MESSAGES = "TDPM_MESSAGES"  # the folder where processes leave what they would print when they end


def is_launched() -> bool:
    """Whether this process is one of several already, started here or by torchrun."""
    return "RANK" in os.environ and "WORLD_SIZE" in os.environ


def launch(count: int, max_restarts: int = 0) -> int:
    """Run this very command line in `count` processes; return its status. Where one fails, end all of them, and start
    again at most `max_restarts` times: training continues from its last checkpoint.

    Raises InputError for more processes than devices.
    """
    enough_devices(count)
    for restart in range(max_restarts + 1):
        status = _Group(count).run()
        if status in FINAL or restart == max_restarts:
            return status
        say(f"a process failed; starting all of them again ({restart + 1} of {max_restarts})")
    return status


class _Group:
    """The processes of one attempt."""

    def __init__(self, count: int) -> None:
        self.count = count

    def run(self) -> int:
        with tempfile.TemporaryDirectory() as messages:
            self.processes = [self._start(rank, messages) for rank in range(self.count)]
            self.ended: set[int] = set()  # which of them were ended from here
            before = {number: signal.signal(number, self._forward) for number in SIGNALS}
            try:
                return self._wait(Path(messages))
            finally:
                for number, handler in before.items():
                    signal.signal(number, handler)

    def _start(self, rank: int, messages: str) -> "subprocess.Popen[bytes]":
        if rank == 0:
            self.port = _free_port()
        threads = max(len(os.sched_getaffinity(0)) // self.count, 1)
        environment = {
            "OMP_NUM_THREADS": str(threads), **LOOPBACK, **os.environ, MESSAGES: messages,
            "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(self.port), "RANK": str(rank), "LOCAL_RANK": str(rank),
            "WORLD_SIZE": str(self.count), "LOCAL_WORLD_SIZE": str(self.count),
        }  # fmt: skip
        # A session of their own: a Ctrl-C reaches the launcher alone, which passes on every signal once.
        return subprocess.Popen(sys.orig_argv, env=environment, start_new_session=True)

    def _forward(self, number: int, frame: FrameType | None) -> None:
        for process in self.processes:
            with suppress(ProcessLookupError):
                process.send_signal(number)

    def _wait(self, messages: Path) -> int:
        """Until all have ended. The others are given GRACE once one has failed; after an interruption, which reaches
        all, the time that they need: the first one saves when the others may have gone already."""
        deadline, hard = float("inf"), False
        while any(process.poll() is None for process in self.processes):
            failed = [process for process in self.processes if process.poll() not in (None, 0, *INTERRUPTED)]
            if failed and deadline == float("inf"):
                deadline = time.monotonic() + GRACE
            if time.monotonic() > deadline:
                for rank, process in enumerate(self.processes):
                    if process.poll() is None:
                        self.ended.add(rank)
                        process.kill() if hard else process.terminate()
                deadline, hard = time.monotonic() + GRACE, True
            time.sleep(0.05)
        return self._status(messages)

    def _status(self, messages: Path) -> int:
        """Print what the processes had to say, each thing once, and return the status of the one that matters most."""
        statuses = {rank: process.returncode for rank, process in enumerate(self.processes)}
        failed = {rank: status for rank, status in statuses.items() if status}
        causes = {
            rank: status for rank, status in failed.items() if status != PeerLost.status and rank not in self.ended
        }
        telling = causes or {rank: status for rank, status in failed.items() if rank not in self.ended} or failed
        said: dict[str, list[int]] = {}
        for rank, status in telling.items():
            path = messages / str(rank)
            text = path.read_text() if path.is_file() else f"error: it ended with {_status_text(status)}"
            said.setdefault(text, []).append(rank)
        for text, ranks in said.items():
            everyone = len(ranks) == self.count
            say(text if everyone else f"process {', '.join(map(str, ranks))} of {self.count}: {text}")
        status = next(iter(telling.values()), 0)
        return status if status >= 0 else 1


def _status_text(status: int) -> str:
    return f"signal {signal.Signals(-status).name}" if status < 0 else f"status {status}"


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port
