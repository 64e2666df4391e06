"""Interruption by signals: the first one lets the work finish its step and save; a second Ctrl-C exits at once."""

import signal
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import NoReturn

Handler = Callable[[int, FrameType | None], object]
Handlers = dict[int, Handler | int | None]  # by signal
HARMLESS = {"SIGCHLD", "SIGCONT", "SIGINFO", "SIGURG", "SIGWINCH"}  # they end no process
STOPPING = {"SIGSTOP", "SIGTSTP", "SIGTTIN", "SIGTTOU"}  # they pause a process
FAULTS = {"SIGABRT", "SIGBUS", "SIGEMT", "SIGFPE", "SIGILL", "SIGSEGV", "SIGSYS", "SIGTRAP"}  # work cannot continue
FAILED_WRITES = {"SIGPIPE", "SIGXFSZ"}  # Python ignores them: writing raises an error
# Every other signal that ends a process unless it is caught: SIGINT, SIGTERM, SIGHUP of a closed terminal, SIGQUIT,
# SIGXCPU of a limit, SIGUSR1 and SIGUSR2, with which schedulers announce SIGTERM, and so on.
SIGNALS = tuple(
    number for number in signal.Signals
    if number.name not in {"SIGKILL"} | HARMLESS | STOPPING | FAULTS | FAILED_WRITES
)  # fmt: skip
FROM_KEYS = (signal.SIGINT, signal.SIGQUIT)  # a second one exits at once
ALWAYS_CAUGHT = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


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
        self._before = catch(self._note)
        return self

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.number = self.number or number
        for key in self._before.keys() & set(FROM_KEYS):  # one that is ignored stays ignored
            signal.signal(key, signal.SIG_DFL)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        restore(self._before)


def catch(handler: Handler) -> Handlers:
    """Let all SIGNALS call a handler; return the handlers before.

    Apart from ALWAYS_CAUGHT, a signal that is ignored, as `nohup` has SIGHUP ignored, or that has a handler of another
    library keeps it.
    """
    before = {number: signal.getsignal(number) for number in SIGNALS}
    caught: Handlers = {
        number: previous for number, previous in before.items() if number in ALWAYS_CAUGHT or _is_free(previous)
    }
    for number in caught:
        signal.signal(number, handler)
    return caught


def _is_free(handler: Handler | int | None) -> bool:
    return handler in (signal.SIG_DFL, _raise) or getattr(handler, "__func__", None) is Interruption._note


def restore(handlers: Handlers) -> None:
    """Restore the handlers that `catch` returned."""
    for number, handler in handlers.items():
        signal.signal(number, handler)


def raise_interrupted() -> None:
    """Let signals raise Interrupted in commands with nothing to save, so that temporary files are removed."""
    catch(_raise)


def _raise(number: int, frame: FrameType | None) -> NoReturn:
    for other in SIGNALS:
        signal.signal(other, signal.SIG_DFL)
    raise Interrupted(number, f"stopped by {signal.Signals(number).name}")


def ignore_signals() -> None:
    """Ignore signals from now on."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)
