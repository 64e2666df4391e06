"""Standard streams whose failure ends no work: a reader that leaves, a full device, an encoding without a character."""

import errno
import os
from collections.abc import Callable
from contextlib import suppress
from typing import TextIO

STANDARD = (0, 1, 2)  # the descriptors of input, output and errors
READER_LEFT = (errno.EPIPE, errno.EIO)  # a closed pipe, a closed terminal


class Stream:
    """A text stream that never raises: the one that `find` returns, which may change.

    Characters that its encoding lacks are replaced. After the first failure nothing more is written; `error` is then
    the failure, unless the reader has left.
    """

    def __init__(self, find: Callable[[], TextIO | None]) -> None:
        self._find = find
        self.error: OSError | None = None

    def write(self, text: str) -> int:
        """Write text, or nothing if that fails."""
        stream = self._stream()
        if stream is not None:
            self._attempt(stream, lambda: self._write(stream, text))
        return len(text)

    def flush(self) -> None:
        """Flush, if that is possible."""
        stream = self._stream()
        if stream is not None:
            self._attempt(stream, stream.flush)

    def isatty(self) -> bool:
        """Return whether a terminal shows the text."""
        stream = self._stream()
        return stream is not None and not stream.closed and stream.isatty()

    def fileno(self) -> int:
        """Return the descriptor. Raises OSError if there is none."""
        if (stream := self._stream()) is None:
            raise OSError(errno.EBADF, "no such stream")
        return stream.fileno()

    @property
    def encoding(self) -> str:
        """The encoding of the text."""
        return getattr(self._stream(), "encoding", None) or "utf-8"

    @property
    def errors(self) -> str:
        """What happens to characters that the encoding lacks."""
        return "replace"

    @property
    def closed(self) -> bool:
        """Always False: writing is always possible."""
        return False

    def __getattr__(self, name: str) -> object:
        """Return what else libraries ask of the stream, such as its `buffer`."""
        return getattr(self._stream(), name)

    def _stream(self) -> TextIO | None:
        stream = self._find()
        return getattr(stream, "rich_proxied_file", stream)  # of a progress bar of rich, which replaces it

    def _write(self, stream: TextIO, text: str) -> None:
        try:
            stream.write(text)
        except UnicodeEncodeError:
            stream.write(text.encode(self.encoding, "replace").decode(self.encoding))

    def _attempt(self, stream: TextIO, action: Callable[[], object]) -> None:
        try:
            action()
        except BlockingIOError:  # a terminal that another program made non-blocking: this text alone is lost
            pass
        except OSError as error:
            if error.errno not in READER_LEFT:
                self.error = error
            _switch_off(stream)
        except ValueError:  # it is closed
            pass
        self.error = self.error or getattr(stream, "error", None)


def _switch_off(stream: TextIO) -> None:
    """Direct the descriptor of a stream to nothing, so that the rest of its buffer and other libraries do not fail."""
    with suppress(OSError, ValueError, AttributeError):
        nothing = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nothing, stream.fileno())
        os.close(nothing)


def open_standard_descriptors() -> None:
    """Open descriptors that were closed at the start, so that no file of ours takes the place of a standard stream."""
    for number in STANDARD:
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
