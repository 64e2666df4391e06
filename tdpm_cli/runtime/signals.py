"""Interruption: the first signal asks the work to finish its step and save; a Ctrl-C after that leaves at once."""

import signal
from types import FrameType, TracebackType
from typing import Any, NoReturn

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)  # USR1: how schedulers announce that SIGTERM will follow


class Interrupted(Exception):
    """The user or the machine asked us to stop, and everything is saved. `status` is the exit status."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + (signal.SIGINT if number == signal.SIGINT else signal.SIGTERM)


class Interruption:
    """While entered, a signal only sets `number`, None before; a second Ctrl-C acts as ever.

    SIGTERM may come twice, as it does from `timeout` and from schedulers that tell the group and then its leader.
    """

    number: int | None = None

    def __enter__(self) -> "Interruption":
        self._before: dict[int, Any] = {number: signal.signal(number, self._note) for number in SIGNALS}
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
    """Let signals raise Interrupted where there is nothing to save, so that what was begun is cleared away."""
    for number in SIGNALS:
        signal.signal(number, _raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number, f"stopped by {signal.Signals(number).name}")


def ignore_signals(worker: int = 0) -> None:
    """Of a worker: signals, which reach a whole group, are for the main process, which ends its workers itself."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
