"""Show names that come from files: without control characters on terminals and pages, without formulas in tables."""

import csv
import io
import re
from collections.abc import Iterable

# Control characters, which steer terminals; marks that reorder text; bytes of a name that are not UTF-8.
HIDDEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
FORMULA = ("=", "+", "-", "@")  # beginnings of cells that spreadsheets compute


def visible(text: object) -> str:
    r"""Return text in one line in which control characters are shown as \x1b."""
    return HIDDEN.sub(_shown, str(text))


def visible_lines(text: object) -> str:
    """Return `visible` of each line."""
    return "\n".join(map(visible, str(text).split("\n")))


def csv_text(rows: Iterable[Iterable[object]]) -> str:
    """Return rows as CSV. Text that a spreadsheet would compute is preceded by an apostrophe."""
    buffer = io.StringIO()
    csv.writer(buffer, lineterminator="\n").writerows([_cell(value) for value in row] for row in rows)
    return buffer.getvalue()


def _cell(value: object) -> object:
    if not isinstance(value, str):
        return value
    text = visible(value)
    return f"'{text}" if text.startswith(FORMULA) else text


def _shown(match: re.Match[str]) -> str:
    code = ord(match[0])
    if 0xDC80 <= code <= 0xDCFF:  # a byte that is not UTF-8, as os.fsdecode represents it
        code -= 0xDC00
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}"
