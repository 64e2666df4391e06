"""Write checkpoints in a thread while training continues."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints.checkpoint import Snapshot
from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.runtime.console import print_line
from tdpm_cli.runtime.files import WriteError

OnError = Literal["stop", "continue"]
LONG_WAIT = 1.0  # seconds that training waits for the disk before tdpm prints a note


class Saver:
    """Writes snapshots of a run, one at a time, so that memory stays bounded.

    A disk that fails raises WriteError, or, with `on_error` "continue", prints a warning; the next snapshot tries
    again. Any other error is raised by the next call.
    """

    def __init__(self, run: Path, keep: int, on_error: OnError) -> None:
        self.run, self.keep, self.on_error = run, keep, on_error
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._running: Future[Path] | None = None
        self._has_noted_wait = False

    def put(self, snapshot: Callable[[], Snapshot]) -> None:
        """Start to write a snapshot, once the previous one is written."""
        begin = time.monotonic()
        self._finish()
        waited = time.monotonic() - begin
        if waited > LONG_WAIT and not self._has_noted_wait:
            print_line(
                f"note: training waited {waited:.1f} s for the disk to write a checkpoint; raise train.snapshot to "
                "write fewer"
            )
            self._has_noted_wait = True
        self._running = self._pool.submit(checkpoint.save, self.run, snapshot(), self.keep)

    def keep_if_best(self, seen: int, name: str, value: float) -> None:
        """Keep the checkpoint of `seen` images as the best if no other scored lower."""
        self._finish()
        folder = self.run / CHECKPOINTS / f"{seen:09d}"
        if folder.is_dir() and checkpoint.keep_best(self.run, folder, name, value):
            print_line(f"the best checkpoint so far: {self.run / checkpoint.BEST}")

    def check(self) -> None:
        """Raise the error of a snapshot that failed; does not wait."""
        if self._running is not None and self._running.done():
            self._finish()

    def last(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write a snapshot, and wait until it is on the disk. Raises WriteError if it cannot be written."""
        self._finish()
        checkpoint.save(self.run, snapshot(), self.keep)

    def close(self) -> None:
        """Wait for the snapshot that is being written."""
        self._pool.shutdown()

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Turn a WriteError into a warning if `on_error` is "continue"."""
        try:
            yield
        except WriteError as error:
            if self.on_error == "stop":
                raise
            print_line(f"warning: {error}\ntraining continues (train.on_save_error is 'continue')")

    def _finish(self) -> None:
        running, self._running = self._running, None
        if running is not None:
            with self.tolerating():
                running.result()


class NullWriter:
    """Takes the place of a Saver and a Log in processes that write nothing.

    With sharded weights (`shared`), every process must take part in a snapshot; this one then discards it.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared

    def put(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take part in a snapshot of sharded weights."""
        if self.shared:
            snapshot()

    def last(self, snapshot: Callable[[], Snapshot]) -> None:
        """Take part in a snapshot of sharded weights."""
        self.put(snapshot)

    def keep_if_best(self, seen: int, name: str, value: float) -> None:
        """Do nothing."""

    def check(self) -> None:
        """Do nothing."""

    def write(self, seen: int, values: Mapping[str, float]) -> None:
        """Do nothing."""

    def scored(self, seen: int) -> bool:
        """Return False."""
        return False

    def tolerating(self) -> AbstractContextManager[object]:
        """Do nothing."""
        return nullcontext()

    def close(self) -> None:
        """Do nothing."""
