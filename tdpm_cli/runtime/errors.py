"""Errors in what the user provided. Every package may import this module."""

import errno
from collections.abc import Iterable
from difflib import get_close_matches

REFUSALS = (  # of the file system, for reasons that are no defect of tdpm
    errno.EACCES, errno.EPERM, errno.EROFS, errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.ENOSPC, errno.EDQUOT,
    errno.EFBIG, errno.EIO, errno.ESTALE, errno.EMFILE, errno.ENFILE,
)  # fmt: skip


class InputError(Exception):
    """Wrong input: the message names the file or key, what was found, what was expected and what to do.

    The command line prints the message alone, and exits with `status`.
    """

    status = 2


class BadFile(InputError):
    """One unusable file of many: `source` is the folder or archive, `name` the file in it; reason and advice follow."""

    def __init__(self, source: object, name: str, reason: str, advice: str = "repair it or remove it") -> None:
        super().__init__(source, name, reason, advice)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        source, name, reason, advice = self.args
        return f"{source}: {name}: {reason}; {advice}"


def refusal(error: BaseException) -> InputError | None:
    """Return the message for an error of the file system that is no defect of tdpm; None for any other error."""
    if not isinstance(error, OSError) or error.errno not in REFUSALS:
        return None
    path = f"{error.filename}: " if error.filename is not None else ""
    return InputError(f"{path}{error.strerror}; use another path, or correct its permissions or its disk")


def one_of(name: str, word: object, accepted: Iterable[str]) -> None:
    """Raise InputError, naming the key or option, for a word that is not accepted."""
    accepted = list(accepted)
    if word not in accepted:
        raise InputError(f"{name} is {word!r}{nearest(str(word), accepted)} Accepted: {', '.join(accepted)}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x' or 'y'?" for the nearest known words and those that begin with it, or "."."""
    known = list(known)
    longer = [name for name in known if word and name.startswith(word)]
    suggested = list(dict.fromkeys([*get_close_matches(word, known, n=2, cutoff=0.5), *longer]))[:3]
    return f"; did you mean {' or '.join(map(repr, suggested))}?" if suggested else "."


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
