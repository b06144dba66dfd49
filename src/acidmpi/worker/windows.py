"""The windows over which a heartbeat measures the unit of time and the rate.

Apart from `worker.pulse`, so that they can be used without MPI.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

ENOUGH_EXCHANGES = 3
"""Exchanges of every rank before x and x̃ are mixed at all."""

UNIT_GRADIENTS = 16
"""Gradients of each rank over which the unit of time is measured, about."""

RATE_EXCHANGES = (200, 32)
"""Exchanges over which the rate is measured: so many, and so many for each rank. The
constants follow the lower envelope of the measured rate, so it should be steady."""


def remember(sums: Vector, step: NDArray[Any], place: int, window: float) -> None:
    """Add `step` to `sums`, and forget as much of the past as fills the window.

    Args:
        sums: what is remembered; changed in place.
        step: what has been added since the last call.
        place: the number by which the window is measured.
        window: how much of it is remembered.
    """
    sums *= max(0.0, 1.0 - step[place] / window)
    sums += step
