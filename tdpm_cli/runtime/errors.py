"""The exceptions for what the user gave us; the ground floor of the house, imported from anywhere."""

from collections.abc import Iterable
from difflib import get_close_matches


class InputError(Exception):
    """Wrong input: names the file or key, what was found, what is accepted and what to do.

    `cli/` prints the message alone and exits with `status`.
    """

    status = 2


class BadFile(InputError):
    """One file of many that cannot be used: the place of all, its name there, the reason, and what to do."""

    def __init__(self, place: object, name: str, reason: str, advice: str = "repair it or take it out") -> None:
        super().__init__(place, name, reason, advice)
        self.name, self.reason = name, reason

    def __str__(self) -> str:
        place, name, reason, advice = self.args
        return f"{place}: {name}: {reason}; {advice}"


def one_of(name: str, word: object, accepted: Iterable[str]) -> None:
    """Raise InputError, naming the key or option, for a word that is none of those accepted."""
    accepted = list(accepted)
    if word not in accepted:
        raise InputError(f"{name} is {word!r}{nearest(str(word), accepted)} Accepted: {', '.join(accepted)}.")


def nearest(word: str, known: Iterable[str]) -> str:
    """Return "; did you mean 'x' or 'y'?" for the nearest known words and those that it begins, or "." alone."""
    known = list(known)
    begun = [name for name in known if word and name.startswith(word)]
    found = list(dict.fromkeys([*get_close_matches(word, known, n=2, cutoff=0.5), *begun]))[:3]
    return f"; did you mean {' or '.join(map(repr, found))}?" if found else "."


def first_line(error: Exception) -> str:
    """Return the first line of an error's message, or the name of its class."""
    return (str(error) or type(error).__name__).strip().splitlines()[0]
