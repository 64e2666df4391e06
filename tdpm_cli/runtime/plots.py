"""Line plots for people, by matplotlib: an optional extra, so it is imported where it is used."""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

SIZE = (4.8, 3.4)  # inches: as narrow as a phone allows, so that the text stays legible there
DPI = 200  # of a PNG
# Okabe and Ito's colours, told apart by colour-blind people, darkest first. Seven markers to six colours: of 42
# series no two look alike, and in greyscale the markers alone tell seven apart.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MARKS = 12  # at most on one line: a training curve is a line with marks, not a caterpillar
TICKS = 10  # at most, where x is ticked at the values measured
NARROW = 5  # times the lowest value: the highest of a logarithmic axis that is ticked evenly
APART = 0.06  # of the axis: ticks closer than this would overprint one another
HALF = 24  # letters of a name that fit half the width
LEVEL = "#444444"

STYLE = {
    "font.family": ["sans-serif"],
    "font.sans-serif": ["DejaVu Sans"],
    "font.size": 9,
    "axes.titlesize": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#DDDDDD",
    "grid.linewidth": 0.6,
    "text.parse_math": False,  # a dollar sign in a name is a dollar sign
    "svg.fonttype": "none",  # text stays text: small, and found by a search
    "svg.hashsalt": "tdpm",  # else the marks are named by chance
}


@dataclass(frozen=True)
class Series:
    """One line: y over x, all finite, of one length; `error` is half the length of each bar, in the unit of y."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None


def lines(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    level: tuple[str, float] | None = None,
) -> "Figure":
    """Draw all series in one plot, with a dashed horizontal `level` of that name and height.

    An axis is logarithmic only if all its values are positive: a negative KID must not vanish. Raises InputError
    where matplotlib is not installed.
    """
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_title(title, loc="left", wrap=True)
        axes.margins(y=0.12)  # room for the name of a level at the lower edge
        for each, colour, marker in zip(series, cycle(COLOURS), cycle(MARKERS), strict=False):
            _line(axes, each, colour, marker)
        if level:
            _level(axes, *level)
        # After the lines: before Matplotlib 3.11, bars drawn on a logarithmic axis upset its limits.
        every_x = {x for each in series for x in each.x}
        if log_x and all(x > 0 for x in every_x):
            axes.set_xscale("log")
            _log_ticks(axes.xaxis, every_x)
        if log_y and all(y > 0 for each in series for y in each.y):
            axes.set_yscale("log")
            _log_ticks(axes.yaxis)
        if len(series) > 1:  # below the axes, where it covers no line
            columns = 2 if max(len(each.name) for each in series) <= HALF else 1
            figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write the plot as PNG or SVG, by the suffix, whole or not at all. Raises InputError for any other suffix."""
    kind = path.suffix.lower()
    if kind == ".svg":
        write_text(path, svg(figure))
    elif kind == ".png":
        with _style(), replacing(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
    else:
        raise InputError(f"{path}: a plot is written as .png or .svg, not as {path.suffix or 'a file without suffix'}")


def svg(figure: "Figure") -> str:
    """The plot as one <svg> element, fit to stand in a page; equal plots give equal text."""
    buffer = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _style():
        figure.savefig(buffer, format="svg", metadata=nothing)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip() + "\n"
    # Every plot of matplotlib's has a "figure_1"; in a page with two, each needs ids of its own.
    own = "p" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{own}-", text)


def _style() -> AbstractContextManager[Any]:
    """Our settings over matplotlib's own defaults, so that no matplotlibrc changes a plot; undone on leaving."""
    try:
        from matplotlib import style
    except ImportError:
        raise InputError("the plots need matplotlib; install it with: pip install 'tdpm-cli[report]'") from None
    return style.context(["default", STYLE])


def _line(axes: "Axes", series: Series, colour: str, marker: str) -> None:
    axes.errorbar(
        series.x,
        series.y,
        yerr=series.error,
        label=series.name,
        color=colour,
        marker=marker,
        markersize=6,
        markeredgecolor="white",
        markeredgewidth=0.4,
        markevery=-(-len(series.x) // MARKS) or 1,
        linewidth=1.4,
        elinewidth=1.0,
        capsize=2.5,
    )


def _level(axes: "Axes", name: str, height: float) -> None:
    axes.axhline(height, color=LEVEL, linestyle="--", linewidth=1.0)
    axes.annotate(
        name,
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -3),  # points: below the line, for a curve comes down to its floor from above
        textcoords="offset points",
        ha="right",
        va="top",
        color=LEVEL,
    )


def _log_ticks(axis: Any, values: Iterable[float] = ()) -> None:
    """Tick a logarithmic axis at `values`, where they are few, else at 1, 2, 5, 10, ..., or evenly where those would
    be too few; in plain digits."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

    few = sorted(values)
    few = _apart(few) if 0 < len(few) <= TICKS else []
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        FixedLocator(few) if few else MaxNLocator(5) if high < NARROW * low else LogLocator(subs=(1, 2, 5))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _apart(values: Sequence[float]) -> list[float]:
    """Of positive, rising values, the first and all that lie far enough, on a logarithmic axis, from the one before."""
    least = (values[-1] / values[0]) ** APART
    kept = [values[0]]
    for value in values[1:]:
        if value >= kept[-1] * least:
            kept.append(value)
    return kept
