"""Figures of simulated runs, as bytes of PNG or as files in a folder."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from acidmpi.errors import ConfigError
from acidmpi.figures.canvas import require_matplotlib, save
from acidmpi.figures.charts import Line, line_chart
from acidmpi.simulate.outcome import Outcome
from acidmpi.simulate.workload import Floats


def check_figure(figure: bool, output: Path | None, named: bool = True) -> None:
    """Raise, before any work, where a figure is asked for that cannot be drawn.

    Args:
        figure: whether one is.
        output: the folder.
        named: whether the folder must be named by --output.

    Raises:
        ConfigError: there is no matplotlib, or no folder.
    """
    if not figure:
        return
    if named and output is None:
        raise ConfigError(
            "--figure needs a folder to draw into, got none; add --output"
        )
    require_matplotlib()


def distance_line(outcomes: Sequence[Outcome], label: str, colour: int) -> Line:
    """Median consensus distance over seeds, in a band from the least to the greatest.

    What is noise of rounding, as between ranks that hold the same, is left out.
    """
    length = min(len(o.samples) for o in outcomes)
    distances = np.array([o.distances[:length] for o in outcomes])
    floor = max(o.floor for o in outcomes)
    times = np.median([o.times[:length] for o in outcomes], axis=0)
    return _banded(times, np.where(distances > floor, distances, np.nan), label, colour)


def loss_line(outcomes: Sequence[Outcome], label: str, colour: int) -> Line:
    """Median test loss over seeds against seconds, in such a band."""
    length = min(len(o.samples) for o in outcomes)
    losses = np.array(
        [[s.test_loss for s in o.samples[:length]] for o in outcomes], dtype=float
    )
    times = np.median([o.times[:length] for o in outcomes], axis=0)
    return _banded(times * outcomes[0].unit_seconds, losses, label, colour)


def _banded(x: Floats, values: Floats, label: str, colour: int) -> Line:
    """Median, least and greatest of the rows of `values`."""
    return Line(
        x=x,
        y=np.median(values, axis=0),
        low=values.min(axis=0),
        high=values.max(axis=0),
        label=label,
        colour=colour,
    )


def draw_losses(
    lines: Sequence[tuple[str, Sequence[Outcome]]], title: str, path: Path
) -> None:
    """The test loss over time of several methods.

    Args:
        lines: a name and the runs of each line.
        title: of the figure.
        path: of the PNG.
    """
    drawn = [loss_line(o, label, k) for k, (label, o) in enumerate(lines)]
    save(
        line_chart(
            drawn,
            title=title,
            x_label="time (seconds; a gradient of a rank that is not slow takes 1)",
            y_label="test loss of the mean of all ranks",
            log_y=True,
        ),
        path,
    )


def draw_distances(
    lines: Sequence[tuple[str, Sequence[Outcome]]],
    slopes: Sequence[float | None],
    title: str,
    path: Path,
) -> None:
    """The consensus distance over time, measured and as the mean square would have it.

    Args:
        lines: a name and the runs of each line.
        slopes: predicted decay for each; None: there is none.
        title: of the figure.
        path: of the PNG.
    """
    drawn = []
    for colour, ((label, outcomes), slope) in enumerate(
        zip(lines, slopes, strict=True)
    ):
        drawn.append(distance_line(outcomes, label, colour))
        if slope is not None:
            drawn.append(_predicted(outcomes, slope, label, colour))
    save(
        line_chart(
            drawn,
            title=title,
            x_label="time (units: mean gradients)",
            y_label="consensus distance",
            log_y=True,
        ),
        path,
    )


def _predicted(
    outcomes: Sequence[Outcome], slope: float, label: str, colour: int
) -> Line:
    """A straight line through the median at a fifth of the run, down to the floor."""
    times = np.array(outcomes[0].times)
    start = len(times) // 5
    anchor = float(
        np.median([o.distances[min(start, len(o.distances) - 1)] for o in outcomes])
    )
    y = anchor * np.exp(-slope * (times - times[start]))
    shown = y > outcomes[0].floor
    return Line(
        x=times[shown],
        y=y[shown],
        label=f"{label}, mean square in theory",
        colour=colour,
        dashed=True,
    )


def draw_growth(
    ranks: Sequence[int],
    times: dict[str, Sequence[float | None]],
    powers: dict[str, float],
    path: Path,
) -> None:
    """Times to a fixed distance by the number of ranks, beside theory's powers.

    Args:
        ranks: the sizes.
        times: of each graph and method, one for each size.
        powers: of the number of ranks, likewise.
        path: of the PNG.
    """
    lines = []
    sizes = np.array(ranks, dtype=float)
    for colour, (name, found) in enumerate(times.items()):
        y = np.array([np.nan if t is None else t for t in found])
        lines.append(Line(x=sizes, y=y, label=name, colour=colour, marked=True))
        theory = y[0] * (sizes / sizes[0]) ** powers[name]
        label = f"{name}: power {powers[name]:g}"
        lines.append(Line(x=sizes, y=theory, label=label, colour=colour, dashed=True))
    save(
        line_chart(
            lines,
            title="Time to a fixed consensus distance",
            x_label="ranks",
            y_label="units of time",
            log_x=True,
            log_y=True,
        ),
        path,
    )
