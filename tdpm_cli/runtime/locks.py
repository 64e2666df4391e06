"""Locks of files, by which processes share a run or a folder; the kernel releases them when a process ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import writing

RUN_LOCK = "lock"  # the file in a run
MAX_NUMBERS = 1 << 40  # of the pieces that a `WorkLocks` can lock; the number after them is that of `exclusive`
POLL_SECONDS = 0.2  # between attempts to lock what another process holds


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Lock a run for this process, and make its folder. Raises InputError, naming the owner, if another process has it.

    The lock's file stays, empty. Forked workers do not inherit the lock.
    """
    path = run / RUN_LOCK
    with writing(path):
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                owner = os.pread(handle, 1000, 0).decode(errors="replace").strip()
                raise InputError(
                    f"{run}: another process trains this run ({owner or 'unknown'}); wait for it, stop it, or start "
                    "another run with --name"
                ) from None
            print_line(
                f"note: {run} is on a file system without locks ({error.strerror}); make sure that only one process "
                "trains it"
            )
        with writing(path):
            os.truncate(handle, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        yield
        os.truncate(handle, 0)
    finally:
        os.close(handle)


class WorkLocks:
    """Locks of numbered pieces of work, one byte of a file each. One process at a time holds a piece.

    On a file system without locks every request succeeds, and processes may do the same work twice.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._path = path

    def acquire(self, number: int, count: int = 1) -> bool:
        """Lock `count` pieces from `number` on, without waiting; return whether this process holds them now."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, count, number)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def close(self, done: bool = False) -> None:
        """Release all pieces; remove the file if all work is `done`."""
        if done:
            with suppress(OSError):
                self._path.unlink()
        os.close(self._handle)


@contextmanager
def exclusive(path: Path) -> Iterator[WorkLocks]:
    """Wait until no other process is inside this context of the same file."""
    locks = WorkLocks(path)
    try:
        while not locks.acquire(MAX_NUMBERS):
            time.sleep(POLL_SECONDS)
        yield locks
    finally:
        locks.close()


def unfinished(
    pieces: Sequence[range], is_done: Callable[[range], bool], locks: WorkLocks, first: int,
    stopped: Callable[[], object],
) -> Iterator[range]:  # fmt: skip
    """Yield the pieces, numbered from `first`, that are not done, each once this process has locked it.

    Pieces that other processes hold come last, if those end without finishing them. Ends when all pieces are done or
    `stopped` returns true.
    """
    remaining = list(enumerate(pieces, first))
    while remaining and not stopped():
        held = []
        for number, piece in remaining:
            if stopped() or is_done(piece):
                continue
            if not locks.acquire(number):
                held.append((number, piece))
            elif not is_done(piece):  # another process may have finished it since
                yield piece
        remaining = held
        if remaining and not stopped():
            time.sleep(POLL_SECONDS)
