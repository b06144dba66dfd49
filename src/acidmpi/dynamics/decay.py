"""How fast a distance decays: the slope of its logarithm, above the noise of rounding."""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

FLOOR = 100.0
"""Distances below so many squared roundings of x are noise, which no fit may see."""


def decay(units: ArrayLike, distances: ArrayLike, floor: float) -> float:
    """Minus the slope of log(distance) over time, by least squares.

    Args:
        units: times.
        distances: one for each.
        floor: those from here down are left out; NaN when fewer than two are left.
    """
    times, values = np.asarray(units, float), np.asarray(distances, float)
    kept = values > floor
    if kept.sum() < 2:
        return math.nan
    slope, _ = np.polyfit(times[kept], np.log(values[kept]), 1)
    return -float(slope)


def rounding_floor(x: NDArray[np.floating], dtype: str) -> float:
    """The distance at which rounding to `dtype` of values like `x` is all that is left."""
    return FLOOR * float(np.finfo(dtype).eps) ** 2 * float(np.mean(x**2)) * x.size
