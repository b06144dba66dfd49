"""A short vector from which the consensus distance of all ranks can be estimated.

Every rank samples the same coordinates of its parameters and folds them, with the same
random signs, into the same few cells (Charikar, Chen, Farach-Colton 2002). The sum of
these sketches and of their squared norms over the ranks gives
mean ‖x_i − x̄‖² ≈ mean ‖s_i‖² − ‖mean s_i‖², without bias; the relative error is about
√(2/cells), more where few coordinates hold most of the distance.
"""

import numpy as np
from numpy.typing import NDArray

CELLS = 64
SAMPLES = 4096


class Sketcher:
    """Makes sketches that can be compared between ranks.

    Args:
        sizes: lengths of the flat buffers.
        seed: the same on all ranks.
    """

    def __init__(self, sizes: list[int], seed: int) -> None:
        generator = np.random.default_rng([seed, 0x5E7C])
        total = sum(sizes)
        count = min(total, SAMPLES)
        chosen = np.sort(generator.choice(total, count, replace=False, shuffle=False))
        self._cell = generator.integers(CELLS, size=count)
        self._sign = generator.choice([-1.0, 1.0], count)
        self._scale = np.sqrt(total / count) if count else 1.0
        ends = np.cumsum(sizes)
        self.coordinates = [
            chosen[(chosen >= end - size) & (chosen < end)] - (end - size)
            for size, end in zip(sizes, ends, strict=True)
        ]
        """Sampled coordinates of each buffer, ascending."""

    def sketch(self, sampled: list[NDArray[np.float64]]) -> NDArray[np.float64]:
        """Fold the values at `coordinates`, one array for each buffer.

        Returns:
            `CELLS` numbers and, last, their squared norm: what the ranks sum.
        """
        values = np.concatenate(sampled) * self._sign * self._scale
        cells = np.bincount(self._cell, weights=values, minlength=CELLS)
        return np.append(cells, cells @ cells)


def consensus_distance(summed: NDArray[np.float64], size: int) -> float:
    """Estimate of mean ‖x_i − x̄‖² from the sum of `size` sketches."""
    mean = summed / size
    return max(0.0, float(mean[-1] - mean[:-1] @ mean[:-1]))
