"""Saving while training goes on: a thread writes one snapshot at a time."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Literal

from tdpm_cli.checkpoints import checkpoint
from tdpm_cli.checkpoints.checkpoint import Snapshot
from tdpm_cli.checkpoints.runs import CHECKPOINTS
from tdpm_cli.runtime.console import say
from tdpm_cli.runtime.files import WriteError

OnError = Literal["stop", "continue"]
BEHIND = 1.0  # seconds that training waits for the disk before it is told


class Saver:
    """Writes snapshots of a run; at most one is under way, so that memory stays bounded.

    What the disk refuses raises WriteError, or, where `on_error` is "continue", is told, and tried again when the next
    is due. Everything else that goes wrong is raised by the call that follows.
    """

    def __init__(self, run: Path, keep: int, on_error: OnError) -> None:
        self.run, self.keep, self.on_error = run, keep, on_error
        self._pool = ThreadPoolExecutor(1, "checkpoint")
        self._under_way: Future[Path] | None = None
        self._told = False

    def put(self, snapshot: Callable[[], Snapshot]) -> None:
        """Begin to write a snapshot, once the one before is done."""
        asked = time.monotonic()
        self._collect()
        waited = time.monotonic() - asked
        if waited > BEHIND and not self._told:
            say(f"note: checkpoints come faster than the disk takes them: training waited {waited:.1f} s for the one "
                "before; a higher train.snapshot would help")  # fmt: skip
            self._told = True
        self._under_way = self._pool.submit(checkpoint.save, self.run, snapshot(), self.keep)

    def keep_if_best(self, seen: int, name: str, value: float) -> None:
        """Once the checkpoint of `seen` images is on the disk, keep it apart if none scored lower. Told if so."""
        self._collect()
        folder = self.run / CHECKPOINTS / f"{seen:09d}"
        if folder.is_dir() and checkpoint.keep_best(self.run, folder, name, value):
            say(f"the best so far: {self.run / checkpoint.BEST}")

    def check(self) -> None:
        """Raise what has gone wrong so far; does not wait."""
        if self._under_way is not None and self._under_way.done():
            self._collect()

    def last(self, snapshot: Callable[[], Snapshot]) -> None:
        """Write a snapshot, and wait until it is on the disk. Raises WriteError where it cannot be."""
        self._collect()
        checkpoint.save(self.run, snapshot(), self.keep)

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown()

    @contextmanager
    def tolerating(self) -> Iterator[None]:
        """Tell, rather than raise, what the disk refuses, where the user asked for that."""
        try:
            yield
        except WriteError as error:
            if self.on_error == "stop":
                raise
            say(f"warning: {error}\ntraining goes on (train.on_save_error is 'continue')")

    def _collect(self) -> None:
        done, self._under_way = self._under_way, None
        if done is not None:
            with self.tolerating():
                done.result()


class Idle:
    """In place of a Saver and a Log, in a process that leaves both to the first one.

    Where weights are sharded, `shared`, it takes part in snapshots, and forgets them.
    """

    def __init__(self, shared: bool = False) -> None:
        self.shared = shared

    def put(self, snapshot: Callable[[], Snapshot]) -> None:
        """Leave it to the first process."""
        if self.shared:
            snapshot()

    def last(self, snapshot: Callable[[], Snapshot]) -> None:
        """Leave it to the first process."""
        self.put(snapshot)

    def keep_if_best(self, seen: int, name: str, value: float) -> None:
        """Leave it to the first process."""

    def check(self) -> None:
        """Nothing can have gone wrong."""

    def write(self, seen: int, values: Mapping[str, float]) -> None:
        """Leave it to the first process."""

    def scored(self, seen: int) -> bool:
        """Leave it to the first process."""
        return False

    def tolerating(self) -> AbstractContextManager[object]:
        """Nothing is written, so nothing fails."""
        return nullcontext()

    def close(self) -> None:
        """Nothing is under way."""
