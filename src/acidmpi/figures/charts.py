"""Line charts with bands, heat maps and bars.

Each function returns the bytes of a PNG; `canvas.save` puts them into a file. Values that
are not finite are left out, as are values that a logarithmic axis cannot show.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from acidmpi.figures.canvas import HEAT, colour, dash, draw, in_lines, shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = NDArray[np.float64]

WIDTH, HEIGHT = 7.6, 4.4
MOST_COLUMNS = 3
"""Panels beside each other."""

PANEL_LETTERS = 32
"""Of one line of a panel's title."""

TITLE_LETTERS = 64
"""Of one line of a chart's title, above its axes."""

HEADING_LETTERS = 9.0
"""Of one line above several panels, for each inch."""

TITLE_LINES, LINE_INCHES = 3, 0.2

LEGEND_LETTERS = 92
"""How many letters of a legend go into one row of a chart."""


@dataclass(frozen=True, kw_only=True)
class Line:
    """One line of a chart; x, y, low and high have one length."""

    x: ArrayLike
    y: ArrayLike
    label: str
    low: ArrayLike | None = None
    """The lower edge of a band around the line; both edges or none."""

    high: ArrayLike | None = None
    colour: int | None = None
    """Lines with the same number have the same colour; by default each has its own."""

    dashed: bool = False
    """For what was predicted, beside what was measured."""

    marked: bool = False
    """Show each point, where there are few."""

    joined: bool = True
    """Whether a line connects the points."""


@dataclass(frozen=True, kw_only=True)
class HeatMap:
    """One panel: a matrix, shown as rows of squares."""

    values: ArrayLike
    title: str


@dataclass(frozen=True, kw_only=True)
class Bars:
    """One panel of bars, by number or by name."""

    values: ArrayLike
    title: str
    names: Sequence[str] | None = None
    """Of the bars; by default their numbers from 0."""

    errors: ArrayLike | None = None
    """Half the length of an error bar, one for each bar."""


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
) -> bytes:
    """Lines in one pair of axes, with a legend below.

    Args:
        lines: drawn in this order; an empty chart says that there is nothing to show.
        title: above the chart.
        x_label: with its unit.
        y_label: likewise.
        log_x: whether the axis is logarithmic.
        log_y: likewise.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    rows = _legend_rows([line.label for line in lines])
    heading = in_lines(title, TITLE_LETTERS, TITLE_LINES)

    def paint(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.set(title=heading, xlabel=x_label, ylabel=y_label)
        axes.set(
            xscale="log" if log_x else "linear", yscale="log" if log_y else "linear"
        )
        drawn = [_line(axes, each, n, log_x, log_y) for n, each in enumerate(lines)]
        least = [y for y in drawn if y is not None]
        if not least:
            _nothing(axes)
            return
        if log_y:  # a band that reaches zero must not stretch the axis
            axes.set_ylim(bottom=min(least) / 2)
        _legend(figure, axes)

    return draw(paint, WIDTH, HEIGHT + 0.19 * rows + _more_lines(heading))


def heat_maps(
    maps: Sequence[HeatMap],
    *,
    x_label: str,
    y_label: str,
    value_label: str,
    title: str = "",
) -> bytes:
    """Matrices side by side on one scale of colours that begins at zero.

    Args:
        maps: the panels.
        x_label: of the columns of each matrix.
        y_label: of its rows.
        value_label: with its unit, at the scale.
        title: above all.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    tables = [np.asarray(each.values, np.float64) for each in maps]
    top = _largest(tables)
    extra = _title_room([each.title for each in maps])
    width, height = _grid_size(len(maps), 3.1, 3.2 + extra, 1.2)
    heading = _heading(title, width)

    def paint(figure: "Figure") -> None:
        panels = _panels(figure, len(maps), heading)
        image: Any = None
        for axes, table, each in zip(panels, tables, maps, strict=True):
            axes.grid(False)
            axes.set(xlabel=x_label, ylabel=y_label)
            axes.set_title(in_lines(each.title, PANEL_LETTERS))
            axes.spines[:].set_visible(True)
            image = axes.imshow(table, cmap=HEAT, vmin=0, vmax=top, aspect="equal")
            _whole_numbers(axes)
        if image is not None:
            scale = figure.colorbar(image, ax=panels, shrink=0.85, label=value_label)
            scale.outline.set_visible(False)

    return draw(paint, width, height + _more_lines(heading))


def bar_charts(
    charts: Sequence[Bars], *, x_label: str, y_label: str, title: str = ""
) -> bytes:
    """Panels of bars on one scale that begins at zero.

    Args:
        charts: the panels.
        x_label: what the bars are.
        y_label: what they measure, with its unit.
        title: above all.

    Raises:
        ConfigError: matplotlib is not installed.
    """
    extra = _title_room([each.title for each in charts])
    width, height = _grid_size(len(charts), 3.4, 2.7 + extra, 0.8)
    heading = _heading(title, width)

    def paint(figure: "Figure") -> None:
        panels = _panels(figure, len(charts), heading, share=True)
        for number, (axes, each) in enumerate(zip(panels, charts, strict=True)):
            axes.grid(False, axis="x")
            axes.set(xlabel=x_label)
            axes.set_title(in_lines(each.title, PANEL_LETTERS))
            axes.set_ylabel(y_label if number % _columns(len(charts)) == 0 else "")
            _bars(axes, each)
        for axes in panels:
            axes.set_ylim(0, 1.05 * _highest(charts))

    return draw(paint, width, height + _more_lines(heading))


def _line(
    axes: "Axes", line: Line, number: int, log_x: bool, log_y: bool
) -> float | None:
    """Draw one line; its least y, or None where there was nothing to draw."""
    x, y = np.asarray(line.x, np.float64), np.asarray(line.y, np.float64)
    shows = _showable(x, log_x) & _showable(y, log_y)
    if not shows.any():
        return None
    number = number if line.colour is None else line.colour
    axes.plot(
        x[shows],
        y[shows],
        color=colour(number),
        linestyle=_dashes(line, number),
        marker="o" if line.marked or not line.joined or shows.sum() == 1 else "",
        markersize=4.5,
        label=shown(line.label),
    )
    least = float(y[shows].min())
    if line.low is not None and line.high is not None:
        low = np.asarray(line.low, np.float64)[shows]
        low = np.maximum(low, least * 1e-3) if log_y else low
        high = np.asarray(line.high, np.float64)[shows]
        axes.fill_between(
            x[shows], low, high, color=colour(number), alpha=0.18, linewidth=0
        )
    return least


def _showable(values: Values, logarithmic: bool) -> NDArray[np.bool_]:
    finite = np.isfinite(values)
    return finite & (values > 0) if logarithmic else finite


def _dashes(line: Line, number: int) -> Any:
    if not line.joined:
        return ""
    return (0, (4, 2)) if line.dashed else dash(number)


def _legend_rows(labels: list[str]) -> int:
    columns = _legend_columns(labels)
    return math.ceil(len(labels) / columns) if labels else 0


def _legend_columns(labels: list[str]) -> int:
    longest = max((len(shown(label)) for label in labels), default=1) + 7
    return max(1, min(4, LEGEND_LETTERS // longest))


def _legend(figure: "Figure", axes: "Axes") -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.legend(
        handles,
        labels,
        loc="outside lower left",
        ncols=_legend_columns(labels),
        borderaxespad=0.2,
        labelspacing=0.3,
    )


def _bars(axes: "Axes", each: Bars) -> None:
    values = np.nan_to_num(np.asarray(each.values, np.float64))
    places = np.arange(len(values))
    axes.bar(places, values, width=0.8, color=colour(0))
    if each.errors is not None:
        half = np.nan_to_num(np.asarray(each.errors, np.float64))
        axes.errorbar(places, values, half, fmt="none", ecolor="#222222", capsize=2)
    if each.names is None:
        _whole_numbers(axes, vertical=False)
        return
    names = [shown(name, 24) for name in each.names]
    axes.set_xticks(places, names, rotation=30, ha="right", rotation_mode="anchor")


def _highest(charts: Sequence[Bars]) -> float:
    """The end of the longest bar, its error included."""
    ends = [
        np.asarray(each.values, np.float64)
        + np.nan_to_num(np.asarray(0.0 if each.errors is None else each.errors))
        for each in charts
    ]
    return _largest(ends)


def _whole_numbers(axes: "Axes", vertical: bool = True) -> None:
    from matplotlib.ticker import MaxNLocator

    for axis in (axes.xaxis, axes.yaxis)[: 2 if vertical else 1]:
        axis.set_major_locator(MaxNLocator(nbins=6, integer=True, min_n_ticks=1))


def _panels(
    figure: "Figure", count: int, heading: str, share: bool = False
) -> list["Axes"]:
    """So many axes in a grid; the rest of the grid stays empty."""
    if heading:
        figure.suptitle(heading, x=0.01, ha="left", weight="bold", size=12)
    columns = _columns(count)
    rows = math.ceil(max(count, 1) / columns)
    grid = figure.subplots(rows, columns, squeeze=False, sharey=share).ravel()
    for axes in grid[count:]:
        axes.set_axis_off()
    if count == 0:
        _nothing(grid[0])
    return list(grid[:count])


def _heading(title: str, width: float) -> str:
    """A title above panels that together have this width."""
    return in_lines(title, int(HEADING_LETTERS * width), TITLE_LINES)


def _more_lines(heading: str) -> float:
    """Inches for the lines behind the first."""
    return LINE_INCHES * heading.count("\n")


def _title_room(titles: Sequence[str]) -> float:
    """Inches for second lines."""
    return 0.2 if any("\n" in in_lines(t, PANEL_LETTERS) for t in titles) else 0.0


def _columns(count: int) -> int:
    return min(max(count, 1), MOST_COLUMNS)


def _grid_size(
    count: int, width: float, height: float, beside: float
) -> tuple[float, float]:
    rows = math.ceil(max(count, 1) / _columns(count))
    return max(WIDTH * 0.6, width * _columns(count) + beside), height * rows + 0.5


def _nothing(axes: "Axes") -> None:
    axes.set_axis_off()
    axes.text(0.5, 0.5, "nothing to show", transform=axes.transAxes, ha="center")


def _largest(tables: list[Values]) -> float:
    """The greatest finite value; a little above zero where there is none."""
    largest = max(
        (float(t[np.isfinite(t)].max(initial=0.0)) for t in tables), default=0
    )
    return largest if largest > 0 else 1.0
