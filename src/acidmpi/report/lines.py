"""Lines of pictures: the runs of a group as their mean with a band."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from acidmpi.report.groups import Group
from acidmpi.report.runs import Curves
from acidmpi.report.timeline import Values

POINTS = 160
"""Of a line over several runs."""

Axis = Callable[[Curves], Values]


def line_of(
    group: Group, x: Axis, y: Axis, *, log_y: bool = False
) -> tuple[Values, Values, Values, Values]:
    """Mean of y over the runs of a group, where all finished ones have it, with a band.

    Args:
        group: unfinished runs count as far as they go, and do not shorten the others.
        x: what of a run is on the horizontal axis; it must not fall.
        y: what is on the other; NaN where it is not known.
        log_y: the mean is the geometric one, the band a factor; what is not positive
            is left out.

    Returns:
        x, the mean, and the edges of a band of one standard deviation over runs, which
        is empty where there is one run.
    """
    whole: list[tuple[Values, Values]] = []
    others: list[tuple[Values, Values]] = []
    for run in group.runs:
        a, b = _known(x(run.curves), y(run.curves), log_y)
        if len(a):
            (whole if run.finished else others).append((a, np.log(b) if log_y else b))
    common, mean, half = _spread(whole or others, others if whole else [])
    edges = mean, mean - half, mean + half
    if log_y:
        edges = np.exp(mean), np.exp(mean - half), np.exp(mean + half)
    return common, *edges


def _spread(
    lines: list[tuple[Values, Values]], others: list[tuple[Values, Values]]
) -> tuple[Values, Values, Values]:
    """x, mean and standard deviation on the stretch that all `lines` have.

    The others count where they are.
    """
    if not lines:
        return np.zeros(0), np.zeros(0), np.zeros(0)
    begin, end = max(a[0] for a, _ in lines), min(a[-1] for a, _ in lines)
    if len(lines) + len(others) == 1 or end < begin:
        x, y = lines[0]
        return x, y, np.zeros_like(y)
    common = np.linspace(begin, end, POINTS)
    table = np.ma.masked_invalid(
        [np.interp(common, a, b, np.nan, np.nan) for a, b in lines + others]
    )
    return common, table.mean(0).data, table.std(0, ddof=1).filled(0.0)


def first_reach(
    curves: Curves, values: Values, reached: Callable[[Values], NDArray[np.bool_]]
) -> float | None:
    """Seconds until `values`, where known, satisfy a condition; None if they never do."""
    seconds, known = _known(curves.seconds, values, False)
    at = np.flatnonzero(reached(known))
    return float(seconds[at[0]]) if len(at) else None


def _known(x: Values, y: Values, positive: bool) -> tuple[Values, Values]:
    keep = np.isfinite(x) & np.isfinite(y)
    if positive:
        keep &= y > 0
    return x[keep], y[keep]


def mean_of(values: Sequence[float | None]) -> float | None:
    """Mean of what is known."""
    known = [v for v in values if v is not None and np.isfinite(v)]
    return float(np.mean(known)) if known else None
