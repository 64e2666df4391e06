"""Write one HTML page that contains everything: no script and no other file, so that it can be mailed and archived.

`page.html` is its template, which jinja2, an optional package, fills in.
"""

import base64
import re
from collections.abc import Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import write_text
from tdpm_cli.runtime.text import visible_lines

NONE = "–"
WIDTH = 920  # pixels of the widest image, as page.html sets it
# A cell that is a number, and is aligned to the right: "25.48 ± 0.3", "1 + 4", "4e-05", "1,797", "–".
NUMBER = re.compile(r"(?=.*\d|–$)[\d\s.,+\-−–±e]+")


class Page:
    """A title and sections, in the order in which they are added; all text is escaped.

    Raises InputError if jinja2 is not installed.
    """

    def __init__(self, title: str) -> None:
        try:
            from jinja2 import Environment, PackageLoader, StrictUndefined
        except ImportError:
            raise InputError("the page needs jinja2; install it with: pip install 'tdpm-cli[report]'") from None
        environment = Environment(
            loader=PackageLoader("tdpm_cli", "runtime"),
            autoescape=True,
            finalize=_finalized,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["exact"] = _exact
        self._template = environment.get_template("page.html")
        self._title = title
        self._sections: list[dict[str, object]] = []

    def text(self, heading: str, paragraph: str) -> None:
        """Add a paragraph; line breaks are preserved."""
        self._add("text", heading, paragraph=paragraph)

    def table(self, heading: str, rows: Sequence[Mapping[str, object]], note: str = "") -> None:
        """Add a table with the keys of the first row as columns; floats have four digits."""
        columns = {name: [_short(row.get(name)) for row in rows] for name in rows[0]}
        self._add(
            "table",
            heading,
            heads=list(columns),
            numeric=[all(NUMBER.fullmatch(cell) for cell in column) for column in columns.values()],
            rows=list(zip(*columns.values(), strict=True)),
            note=note,
        )

    def figure(self, heading: str, svg_text: str, caption: str = "") -> None:
        """Add a plot of `plots.svg`. Its text is not escaped, so it must come from there."""
        self._add("figure", heading, svg=svg_text, caption=caption)

    def image(self, heading: str, png_bytes: bytes, caption: str = "") -> None:
        """Add an image; one that fits the page keeps its pixels sharp when enlarged."""
        width = int.from_bytes(png_bytes[16:20], "big")  # of the header, PNG specification 11.2.2
        png = base64.b64encode(png_bytes).decode()
        # An image that must shrink is smoothed: sharp pixels would drop whole rows.
        self._add("image", heading, png=png, sharp=width <= WIDTH, caption=caption)

    def details(self, heading: str, mapping: Mapping[str, object]) -> None:
        """Add nested keys and values in full, such as a protocol, collapsed until the reader opens them."""
        self._add("details", heading, mapping=mapping)

    def write(self, path: Path) -> None:
        """Write the page in one piece. Raises InputError if `path` cannot be written."""
        write_text(path, self._template.render(title=self._title, sections=self._sections))

    def _add(self, kind: str, heading: str, **content: object) -> None:
        self._sections.append({"kind": kind, "heading": heading, **content})


def _finalized(value: object) -> object:
    """Show the control characters of text; a plot of ours, marked as safe, stays as it is."""
    return visible_lines(value) if isinstance(value, str) and not hasattr(value, "__html__") else value


def _short(value: object) -> str:
    """Format a cell of a table."""
    if isinstance(value, bool) or not isinstance(value, Real):
        return _exact(value)
    return f"{int(value):,}" if isinstance(value, Integral) else f"{float(value):.4g}"


def _exact(value: object) -> str:
    if value is None:
        return NONE
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, (list, tuple)):
        return ", ".join(map(_exact, value)) or NONE
    return str(value)
