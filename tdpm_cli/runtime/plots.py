"""Draw line plots with matplotlib, an optional package that is imported only here."""

import hashlib
import io
import re
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import cycle
from pathlib import Path
from typing import TYPE_CHECKING

from tdpm_cli.runtime.errors import InputError
from tdpm_cli.runtime.files import replacing, write_text
from tdpm_cli.runtime.text import visible

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.axis import Axis
    from matplotlib.figure import Figure

SIZE = (4.8, 3.4)  # inches: narrow enough that text stays legible on a phone
DPI = 200  # of a PNG
# Okabe and Ito's colours, which colour-blind readers can distinguish, darkest first. With seven markers and six
# colours, 42 series all look different, and in greyscale the markers distinguish seven.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X")
MARKS = 12  # at most on one line, so that a training curve remains a line
TICKS = 10  # at most, if x is ticked at its values
NARROW = 5  # ratio of highest to lowest value below which a logarithmic axis has evenly spaced ticks
MIN_TICK_DISTANCE = 0.06  # of the axis; closer ticks would overlap
HALF_WIDTH = 24  # letters of a name that fit half the width
LEVEL_COLOUR = "#444444"

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
    "text.parse_math": False,  # dollar signs in names are no formulas
    "svg.fonttype": "none",  # text remains text: small and searchable
    "svg.hashsalt": "tdpm",  # without it, ids are random
}


@dataclass(frozen=True)
class Series:
    """One line: y over x, all finite, of equal length; `error` is half the length of each bar, in the unit of y."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    error: Sequence[float] | None = None


@dataclass(frozen=True)
class Frame:
    """Title and axes of a plot. A log axis needs positive values: with a negative KID it is linear."""

    title: str
    x_label: str
    y_label: str
    log_x: bool = False
    log_y: bool = False


def lines(series: Sequence[Series], frame: Frame, level: tuple[str, float] | None = None) -> "Figure":
    """Draw all series in one plot, with a dashed horizontal `level` of that name and height.

    Raises InputError if matplotlib is not installed.
    """
    with _style():
        from matplotlib.figure import Figure

        figure = Figure(figsize=SIZE, layout="constrained")
        axes = figure.add_subplot()
        axes.set(xlabel=visible(frame.x_label), ylabel=visible(frame.y_label))
        axes.set_title(visible(frame.title), loc="left", wrap=True)
        axes.margins(y=0.12)  # space for the name of a level at the lower edge
        for one, colour, marker in zip(series, cycle(COLOURS), cycle(MARKERS), strict=False):
            _line(axes, one, colour, marker)
        if level:
            _level(axes, *level)
        # After the lines: before Matplotlib 3.11, bars drawn on a logarithmic axis upset its limits.
        every_x = {x for one in series for x in one.x}
        if frame.log_x and all(x > 0 for x in every_x):
            axes.set_xscale("log")
            _log_ticks(axes.xaxis, every_x)
        if frame.log_y and all(y > 0 for one in series for y in one.y):
            axes.set_yscale("log")
            _log_ticks(axes.yaxis)
        if len(series) > 1:  # below the axes, where it covers no line
            columns = 2 if max(len(one.name) for one in series) <= HALF_WIDTH else 1
            figure.legend(loc="outside lower center", ncols=columns, frameon=False)
    return figure


def save(figure: "Figure", path: Path) -> None:
    """Write the plot as PNG or SVG, by its suffix, in one piece. Raises InputError for any other suffix."""
    kind = path.suffix.lower()
    if kind == ".svg":
        write_text(path, svg(figure))
    elif kind == ".png":
        with _style(), replacing(path) as part:
            figure.savefig(part, format="png", dpi=DPI)
    else:
        raise InputError(f"{path}: suffix {path.suffix or '(none)'}; accepted for a plot: .png or .svg")


def svg(figure: "Figure") -> str:
    """Return the plot as one <svg> element for a page; equal plots give equal text."""
    buffer = io.StringIO()
    no_metadata = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    with _style():
        figure.savefig(buffer, format="svg", metadata=no_metadata)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].strip() + "\n"
    # Every plot of matplotlib has a "figure_1"; two plots on one page need different ids.
    prefix = "p" + hashlib.sha256(text.encode()).hexdigest()[:8]
    return re.sub(r'( id="|url\(#|href="#)', rf"\g<1>{prefix}-", text)


def _style() -> AbstractContextManager[None]:
    """Apply STYLE over matplotlib's defaults, so that no matplotlibrc changes a plot; leaving restores the settings."""
    try:
        from matplotlib import style
    except ImportError:
        raise InputError("plots need the package matplotlib; install it with: pip install 'tdpm-cli[report]'") from None
    return style.context(["default", STYLE])


def _line(axes: "Axes", series: Series, colour: str, marker: str) -> None:
    axes.errorbar(
        series.x,
        series.y,
        yerr=series.error,
        label=visible(series.name),
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
    axes.axhline(height, color=LEVEL_COLOUR, linestyle="--", linewidth=1.0)
    axes.annotate(
        visible(name),
        (1, height),
        xycoords=("axes fraction", "data"),
        xytext=(-2, -3),  # points: below the line, because a curve approaches its floor from above
        textcoords="offset points",
        ha="right",
        va="top",
        color=LEVEL_COLOUR,
    )


def _log_ticks(axis: "Axis", values: Iterable[float] = ()) -> None:
    """Tick a logarithmic axis at `values` if they are few, else at 1, 2, 5, 10, ..., or evenly on a narrow axis."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, MaxNLocator, NullLocator

    few = sorted(values)
    few = _spaced(few) if 0 < len(few) <= TICKS else []
    low, high = axis.get_view_interval()
    axis.set_major_locator(
        FixedLocator(few) if few else MaxNLocator(5) if high < NARROW * low else LogLocator(subs=(1, 2, 5))
    )
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_locator(NullLocator())


def _spaced(values: Sequence[float]) -> list[float]:
    """Return the first of positive, rising values, and each that is far enough from the one before on a log axis."""
    least = (values[-1] / values[0]) ** MIN_TICK_DISTANCE
    kept = [values[0]]
    for value in values[1:]:
        if value >= kept[-1] * least:
            kept.append(value)
    return kept
