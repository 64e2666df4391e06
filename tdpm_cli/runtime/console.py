"""Progress bars, tables and lines for the user, and the log of a run. No other file prints."""

import json
import math
import os
import shlex
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import WriteError, open_owned, write_text, writing
from tdpm_cli.runtime.streams import Stream
from tdpm_cli.runtime.text import visible, visible_lines

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

console = Console(file=cast(TextIO, Stream(lambda: sys.stderr)), highlight=False, soft_wrap=True, emoji=False)
results = Stream(lambda: sys.stdout)  # for what a command computes
LINE_SECONDS = 15  # between lines of progress without a terminal


class ProgressBar:
    """Progress of `total` units: a bar with rate and ETA, or without a terminal a line from time to time.

    If `processes` divide the work evenly, the progress of this one counts for all of them.
    """

    def __init__(self, label: str, total: int, done: int = 0, unit: str = "img", processes: int = 1) -> None:
        self._processes = processes
        self.label, self.total, self.done, self.unit = visible(label), total, done, unit
        self._values: dict[str, float] = {}
        self._start, self._first, self._last = time.monotonic(), done, time.monotonic()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=console,
        )

    def __enter__(self) -> "ProgressBar":
        if console.is_terminal:
            self._bar.start()
            self._task = self._bar.add_task(self.label, total=self.total, completed=self.done, note="")
        return self

    def __exit__(self, *error: object) -> None:
        if console.is_terminal:
            self._bar.stop()

    @contextmanager
    def paused(self) -> Iterator[None]:
        """A context in which another bar may be shown, and time does not count."""
        begin = time.monotonic()
        if console.is_terminal:
            self._bar.stop()
        try:
            yield
        finally:
            if console.is_terminal:
                self._bar.start()
            self._start += time.monotonic() - begin

    def rename(self, label: str) -> None:
        """Show another label from now on."""
        if visible(label) != self.label:
            self.label = visible(label)
            if console.is_terminal:
                self._bar.update(self._task, description=self.label)

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._first) / max(time.monotonic() - self._start, 1e-9)

    def advance(self, count: int, values: Mapping[str, float] | None = None) -> None:
        """Count `count` more units; show the latest of each of the `values` beside the bar."""
        self.done = min(self.done + count * self._processes, self.total)
        self._values |= values or {}
        note = f"{self.rate:.4g} {self.unit}/s " + "  ".join(f"{k} {v:.3g}" for k, v in self._values.items())
        if console.is_terminal:
            self._bar.update(self._task, completed=self.done, note=note)
        elif time.monotonic() - self._last > LINE_SECONDS or self.done >= self.total:
            self._last = time.monotonic()
            left = max(self.total - self.done, 0) / max(self.rate, 1e-9)
            print_line(f"{self.label} {self.done}/{self.total} {self.unit}  {note}  ETA {left:.0f} s")


class TaskTimes:
    """The time that a loop, or threads beside it, spend on each task, in seconds."""

    def __init__(self) -> None:
        self._seconds: dict[str, float] = {}
        self._begin, self._lock = time.perf_counter(), threading.Lock()

    @contextmanager
    def on(self, what: str) -> Iterator[None]:
        """Count the time inside this context for a task. Any thread may use it."""
        begin = time.perf_counter()
        try:
            yield
        finally:
            with self._lock:
                self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - begin

    def shares(self) -> dict[str, float]:
        """Return each task's share of the time since the start; tasks of threads overlap those of the loop."""
        total = max(time.perf_counter() - self._begin, 1e-9)
        return {what: seconds / total for what, seconds in self._seconds.items()}


def summary_writer() -> "type[SummaryWriter]":
    """Return TensorBoard's writer class. Raises InputError if TensorBoard is not installed."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        raise InputError(
            "train.tensorboard is true, but TensorBoard is not installed; "
            "install it with: pip install 'tdpm-cli[tensorboard]'"
        ) from None
    return SummaryWriter


class Log:
    """`log.jsonl` of a run, one object a line, and optionally TensorBoard's files."""

    def __init__(self, run: Path, seen: int, tensorboard: bool = False) -> None:
        self.path = run / "log.jsonl"
        if self.path.is_file():  # remove lines after the checkpoint from which the run resumes
            lines = self.path.read_text(errors="replace").splitlines(keepends=True)
            kept = [line for line in lines if _seen(line) <= seen]
            write_text(self.path, "".join(kept))
        self._writer = summary_writer()(str(run / "tensorboard"), purge_step=seen) if tensorboard else None

    def write(self, seen: int, values: Mapping[str, float]) -> None:
        """Append one line."""
        with writing(self.path), open(open_owned(self.path, os.O_WRONLY | os.O_APPEND), "a") as file:
            file.write(json.dumps({"seen": seen, **{key: float(f"{v:.6g}") for key, v in values.items()}}) + "\n")
        if self._writer:
            for key, value in values.items():
                self._writer.add_scalar(key, value, seen)

    def scored(self, seen: int) -> bool:
        """Return whether the log has a score after `seen` images."""
        lines = self.path.read_text().splitlines() if self.path.exists() else []
        return any('"score/' in line and _seen(line + "\n") == seen for line in lines)

    def close(self) -> None:
        """Flush and close TensorBoard's files."""
        if self._writer:
            self._writer.close()


def _seen(line: str) -> float:
    """Return the images seen in a line of the log; infinity for an incomplete line of a killed process."""
    try:
        return float(json.loads(line)["seen"]) if line.endswith("\n") else math.inf
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError):
        return math.inf


def table(title: str, rows: list[dict[str, str]]) -> None:
    """Print rows, all with the same keys, as a table, the result of a command."""
    _print_table(title, rows, results)


def summary_table(title: str, values: Mapping[str, str]) -> None:
    """Print names and their values as a table of two columns without heads."""
    _print_table(title, [{"": name, " ": value} for name, value in values.items()], Stream(lambda: sys.stdout))


def _print_table(title: str, rows: list[dict[str, str]], stream: Stream) -> None:
    if console.quiet:
        return
    shown = Table(title=Text(visible(title)), title_justify="left")
    for number, key in enumerate(rows[0]):
        # Names stay in one line.
        shown.add_column(Text(visible(key)), no_wrap=number == 0, overflow="fold")
    for row in rows:
        shown.add_row(*(Text(visible(value)) for value in row.values()))
    Console(file=cast(TextIO, stream), soft_wrap=True).print(shown)


def print_result(text: str) -> None:
    """Print text that is the result of a command, such as a preset."""
    results.write(text)
    results.flush()


def check_results() -> None:
    """Raise WriteError if the results of this command could not be printed; a reader that left is no error."""
    if results.error is not None:
        raise WriteError(f"standard output could not be written ({results.error.strerror}); repeat with another output")


@contextmanager
def quiet(on: bool) -> Iterator[None]:
    """A context in which, if `on`, nothing is printed, because another process prints."""
    before, console.quiet = console.quiet, on or console.quiet
    try:
        yield
    finally:
        console.quiet = before


def next_command(command: str, *arguments: object) -> str:
    """Return a line that suggests a command, with its arguments quoted for a shell."""
    return f"next: {command} {shlex.join(map(str, arguments))}".rstrip()


def print_line(text: str) -> None:
    """Print a line for the user."""
    console.print(visible_lines(text), markup=False)


def since_the_program_began() -> float:
    """Return the seconds since this process started; elsewhere than on Linux, its CPU time."""
    try:
        ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return time.process_time()
    return time.clock_gettime(time.CLOCK_BOOTTIME) - ticks / os.sysconf("SC_CLK_TCK")
