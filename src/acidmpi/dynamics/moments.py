"""Exact second moments of averaging on any graph, with exchanges on Poisson clocks.

Let P hold E[z zᵀ] of one coordinate, z = (x, x_tilde) of all ranks, without its mean over
ranks. With Lambda the Laplacian of the edges' rates, B = [[-eta - alpha Lambda, eta],
[eta - alpha_tilde Lambda, -eta]] and g = (alpha, alpha_tilde),

    dP/dt = B P + P Bᵀ + sum over edges of rate_e q_e (g gᵀ ⊗ d_e d_eᵀ) + noise,

d_e = e_i - e_j and q_e = d_eᵀ P_xx d_e, the mean square of an exchanged difference. In the
eigenvectors of Lambda the first part falls into blocks of 2 x 2, so for a trial rate s only
the vector q has to be found: q = K(s) q, where K(s) is a positive map. The mean square
decays at -s for the s at which the largest eigenvalue of K(s) is 1. Costs n^3 operations,
some hundred times.

What is typical decays faster than the mean square, which rare unlucky orders of exchanges
hold up; the median of simulated runs follows the typical.
"""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from acidmpi.dynamics.coefficients import Coefficients

Floats = NDArray[np.float64]
Integers = NDArray[np.intp]

_STEPS = 60
_ITERATIONS = 500
_TOLERANCE = 1e-9


class Moments:
    """Second moments of one graph with given constants.

    Args:
        size: number of ranks, at least 2.
        endpoints: lower and higher rank of each edge, as in `Topology.endpoints`.
        rates: exchanges per unit of time on each edge, all positive.
        coefficients: the constants; with eta = 0 x_tilde plays no part.
    """

    def __init__(
        self,
        size: int,
        endpoints: tuple[Integers, Integers],
        rates: NDArray[np.floating[Any]],
        coefficients: Coefficients,
    ) -> None:
        self._size = size
        self._first, self._second = endpoints
        self._rates = np.asarray(rates, dtype=np.float64)
        values, vectors = np.linalg.eigh(self._laplacian(np.ones(len(self._rates))))
        self._modes: Floats = vectors[:, 1:]
        self._blocks, self._shares = _blocks(values[1:], coefficients)

    def decay(self) -> float:
        """Slope per unit at which the mean square falls; negative where it grows."""
        low = 2 * float(np.linalg.eigvals(self._blocks).real.max())
        high = low + 1e-3
        while self._gain(high) > 1:
            high = low + 2 * (high - low)
        for _ in range(_STEPS):
            middle = (low + high) / 2
            low, high = (middle, high) if self._gain(middle) > 1 else (low, middle)
            if high - low < _TOLERANCE:
                break
        return -high

    def noise_distance(self, variance: float) -> float:
        """Consensus distance of an element in the long run, under noise of gradients.

        Args:
            variance: of what gradients add to an element of x, and of x_tilde, in a unit.

        Returns:
            Infinity where noise is not forgotten.
        """
        if self.decay() <= _TOLERANCE:
            return math.inf
        ones = np.ones_like(self._shares)
        source = np.eye(self._modes.shape[1]) * variance
        noise = self._solve(0.0, ones) * source
        jump = self._solve(0.0, self._shares)
        seen = self._squares(noise)
        q = seen
        for _ in range(20 * _ITERATIONS):
            before, q = q, seen + self._squares(jump * self._feed(q))
            if np.abs(q - before).max() <= _TOLERANCE * np.abs(q).max():
                break
        total = noise + jump * self._feed(q)
        return float(np.trace(total)) / self._size

    def _gain(self, s: float) -> float:
        """Largest eigenvalue of K(s), by iteration of a positive vector."""
        jump = self._solve(s, self._shares)
        q = np.ones(len(self._rates))
        gain = 0.0
        for _ in range(_ITERATIONS):
            q = self._squares(jump * self._feed(q))
            before, gain = gain, float(np.abs(q).max())
            if not math.isfinite(gain) or gain == 0:
                break
            q /= gain
            if abs(gain - before) <= _TOLERANCE * gain:
                break
        return gain

    def _solve(self, s: float, source: Floats) -> Floats:
        """P_xx for each pair of modes, of s P = B P + P Bᵀ + source sourceᵀ."""
        blocks, width = self._blocks, self._blocks.shape[1]
        eye = np.eye(width)
        left = np.einsum("kab,cd->kacbd", blocks, eye)
        right = np.einsum("ab,lcd->lacbd", eye, blocks)
        both = left[:, None] + right[None, :]
        count = len(blocks)
        system = s * np.eye(width**2) - both.reshape(count, count, width**2, width**2)
        wanted = np.kron(source, source)
        solution = np.linalg.solve(system, wanted[None, None, :, None])
        return np.asarray(solution[..., 0, 0])

    def _feed(self, q: Floats) -> Floats:
        """The sum over edges of rate q d dᵀ, in modes."""
        return np.asarray(self._modes.T @ self._laplacian(q) @ self._modes)

    def _squares(self, moments: Floats) -> Floats:
        """Mean square of the difference across each edge, for P_xx in modes."""
        across = self._modes[self._first] - self._modes[self._second]
        return np.asarray(
            np.einsum("ek,kl,el->e", across, moments, across, optimize=True)
        )

    def _laplacian(self, weights: Floats) -> Floats:
        rates = self._rates * weights
        laplacian = np.zeros((self._size, self._size))
        np.add.at(laplacian, (self._first, self._second), -rates)
        laplacian += laplacian.T
        np.fill_diagonal(laplacian, -laplacian.sum(axis=1))
        return laplacian


def _blocks(values: Floats, coefficients: Coefficients) -> tuple[Floats, Floats]:
    """B in each mode, and the shares of a jump; of width 1 where x_tilde has no say."""
    eta, alpha, alpha_tilde = coefficients
    if eta == 0:
        return (-alpha * values)[:, None, None], np.array([alpha])
    flat = np.ones_like(values)
    rows = [
        [-eta - alpha * values, eta * flat],
        [eta - alpha_tilde * values, -eta * flat],
    ]
    return np.moveaxis(np.array(rows), -1, 0), np.array([alpha, alpha_tilde])
