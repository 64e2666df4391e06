"""Work that processes divide among themselves: who holds which piece, as the kernel knows it."""

import errno
import fcntl
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from tdpm_cli.runtime.files import writing

MOST = 1 << 40  # numbers; the one after them is of `one_at_a_time`
PAUSE = 0.2  # seconds between looks at what others hold


class Claims:
    """Numbers that one process at a time holds, each by a lock on that byte of a file; what a process held when it
    ended, however it ended, is free again. Where there are no locks every claim is granted: work is then done twice.
    """

    def __init__(self, path: Path) -> None:
        with writing(path):
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
        self._path = path

    def take(self, number: int, count: int = 1) -> bool:
        """Whether the numbers from this one on, as many as `count`, are ours now."""
        try:
            fcntl.lockf(self._handle, fcntl.LOCK_EX | fcntl.LOCK_NB, count, number)
        except OSError as error:
            return error.errno not in (errno.EACCES, errno.EAGAIN)
        return True

    def close(self, done: bool = False) -> None:
        """Give everything back; and remove the file where all is `done`."""
        if done:
            with suppress(OSError):
                self._path.unlink()
        os.close(self._handle)


@contextmanager
def one_at_a_time(path: Path) -> Iterator[Claims]:
    """Wait until no other process is inside."""
    claims = Claims(path)
    try:
        while not claims.take(MOST):
            time.sleep(PAUSE)
        yield claims
    finally:
        claims.close()


def divided(
    pieces: Sequence[range], is_done: Callable[[range], bool], claims: Claims, first: int,
    stopped: Callable[[], object],
) -> Iterator[range]:  # fmt: skip
    """Yield the pieces, numbered from `first`, that are not done and that nobody holds; then those that others held and
    left undone. Ends when all are done, or when `stopped`."""
    left = list(enumerate(pieces, first))
    while left and not stopped():
        held = []
        for number, piece in left:
            if stopped() or is_done(piece):
                continue
            if not claims.take(number):
                held.append((number, piece))
            elif not is_done(piece):  # by another process, in between
                yield piece
        left = held
        if left and not stopped():
            time.sleep(PAUSE)
