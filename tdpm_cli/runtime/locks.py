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
from tdpm_cli.runtime.files import open_owned, writing

RUN_LOCK = "lock"  # the file in a run
MAX_NUMBERS = 1 << 40  # of the pieces that a `WorkLocks` can lock; the two numbers after them have other uses
BEGINNING, FOLDER = MAX_NUMBERS, MAX_NUMBERS + 1
OWNER_BYTES = 1000  # at most, of the text in a run's lock
POLL_SECONDS = 0.2  # between attempts to lock what another process holds


@contextmanager
def lock_run(run: Path) -> Iterator[None]:
    """Lock a run for this process, and make its folder. Raises InputError, naming the owner, if another process has it.

    The lock's file stays, empty. Raises InputError for a link, or a file of that name that is not a lock. Forked
    workers do not inherit the lock.
    """
    path = run / RUN_LOCK
    with writing(path):
        run.mkdir(parents=True, exist_ok=True)
    handle = open_owned(path, os.O_RDWR)
    try:
        owner = os.pread(handle, OWNER_BYTES + 1, 0)
        if owner and (not owner.startswith(b"process ") or len(owner) > OWNER_BYTES):
            raise _not_ours(path)
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                name = owner.decode(errors="replace").strip() or "unknown"
                raise InputError(
                    f"{run}: another process trains this run ({name}); wait for it, stop it, or start "
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

    On a file system without locks every request succeeds, and processes may do the same work twice. A process must open
    a file of locks once at a time: the kernel releases all its locks when it closes one handle. Raises InputError for a
    link, or a file of that name that is not a file of locks.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = self._open()

    def acquire(self, number: int, count: int = 1) -> bool:
        """Lock `count` pieces from `number` on, without waiting; return whether this process holds them now."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, count, number)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def share(self, number: int) -> None:
        """Turn a lock of this process into one that several processes hold, or join those that hold it."""
        with suppress(OSError):
            fcntl.lockf(self._handle, fcntl.LOCK_SH | fcntl.LOCK_NB, 1, number)

    @contextmanager
    def beginning(self) -> Iterator[None]:
        """Wait until no other process is inside this context of the same file."""
        while not self.acquire(BEGINNING) or not self._is_current():
            if not self._is_current():  # the last process that used it has removed it
                os.close(self._handle)
                self._handle = self._open()
            else:
                time.sleep(POLL_SECONDS)
        try:
            yield
        finally:
            with suppress(OSError):
                fcntl.lockf(self._handle, fcntl.LOCK_UN, 1, BEGINNING)

    def close(self, done: bool = False) -> None:
        """Release all locks; remove the file if all work is `done` and no other process uses it."""
        if done:
            with suppress(OSError):
                fcntl.lockf(self._handle, fcntl.LOCK_UN)
                if self.acquire(0, FOLDER + 1) and self._is_current():
                    self._path.unlink()
        os.close(self._handle)

    def _open(self) -> int:
        handle = open_owned(self._path, os.O_RDWR)
        if os.fstat(handle).st_size:
            os.close(handle)
            raise _not_ours(self._path)
        return handle

    def _is_current(self) -> bool:
        """Return whether the file that is open is the one at the path."""
        try:
            return os.path.samestat(os.lstat(self._path), os.fstat(self._handle))
        except FileNotFoundError:
            return False


def _not_ours(path: Path) -> InputError:
    return InputError(f"{path}: found a file that tdpm did not write, at the place of its lock; move it away")


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
