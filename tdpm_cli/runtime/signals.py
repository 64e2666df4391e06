"""Interruption by signals: the first one lets the work finish its step and save; a second Ctrl-C exits at once."""

import signal
from types import FrameType, TracebackType
from typing import NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # schedulers announce SIGTERM with USR1


class Interrupted(Exception):
    """The user or the machine stopped the command, and everything is saved. `status` is the exit status."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


class Interruption:
    """A context in which a signal only sets `number`, which is None before; a second Ctrl-C acts as usual.

    SIGTERM may arrive twice: `timeout` and schedulers send it to the process group and then to its leader.
    """

    number: int | None = None

    def __enter__(self) -> "Interruption":
        self._before = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)


def raise_interrupted() -> None:
    """Let signals raise Interrupted in commands with nothing to save, so that temporary files are removed."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number, f"stopped by {signal.Signals(number).name}")


def ignore_signals(worker: int = 0) -> None:
    """Ignore signals in a worker process: they reach the whole group, and the main process ends its workers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
