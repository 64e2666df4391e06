"""Interruption: the first Ctrl-C or SIGTERM asks the work to finish its step and save; the second leaves at once."""

import signal
from types import FrameType, TracebackType
from typing import Any


class Interrupted(Exception):
    """The user or the machine asked us to stop, and everything is saved. `status` is the exit status."""

    def __init__(self, number: int, message: str) -> None:
        super().__init__(message)
        self.status = 128 + number


class Interruption:
    """While entered, SIGINT and SIGTERM only set `number`; a second one acts as ever."""

    number: int | None = None

    def __enter__(self) -> "Interruption":
        self._before: dict[int, Any] = {
            number: signal.signal(number, self._note) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = number
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
