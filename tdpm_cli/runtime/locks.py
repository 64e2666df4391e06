"""One run, one owner: a lock that the kernel gives back when its process ends, however it ends."""

import errno
import fcntl
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import writing

LOCK = "lock"


@contextmanager
def owned(run: Path) -> Iterator[None]:
    """Hold a run, whose folder is made, for this process. Raises InputError, naming who holds it, where another does.

    The file stays, with nothing in it; a lock that a killed process left is none. Locks are of the process: its forked
    workers do not hold them.
    """
    path = run / LOCK
    with writing(path):
        run.mkdir(parents=True, exist_ok=True)
        handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        try:
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EACCES, errno.EAGAIN):
                who = os.pread(handle, 1000, 0).decode(errors="replace").strip()
                raise InputError(
                    f"{run}: another process trains this run ({who or 'it does not say which'}); wait for it or stop "
                    "it, or begin another run with --name"
                ) from None
            say(f"note: {run} lies where there are no locks ({error.strerror}); see that only one process trains it")
        with writing(path):
            os.truncate(handle, 0)
            since = time.strftime("%Y-%m-%d %H:%M:%S %Z")
            os.pwrite(handle, f"process {os.getpid()} on {socket.gethostname()} since {since}\n".encode(), 0)
        yield
        os.truncate(handle, 0)
    finally:
        os.close(handle)
