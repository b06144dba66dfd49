"""What simulated ranks work on: where they start, their gradients, how well they do."""

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Scores = tuple[float | None, float | None]
"""Test loss and test accuracy, as far as there are any."""


class Workload(Protocol):
    """The functions of all ranks; vectors are float64 of one length."""

    computes: bool
    """Whether there are gradients at all."""

    def start(self) -> Floats:
        """Where the ranks begin: a new array, one row for each."""
        ...

    def gradient(self, rank: int, x: Floats) -> tuple[float | None, Floats]:
        """Loss, if known, and gradient of `rank` at `x`, which is not changed.

        The gradient may be written over by the next call for the same rank.
        """
        ...

    def evaluate(self, x: Floats) -> Scores:
        """How good `x`, the mean of all ranks, is."""
        ...
