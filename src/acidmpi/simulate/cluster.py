"""The vectors of all simulated ranks, each mixed only when it is touched.

Rank i's x and x_tilde stand at its own theta; an event mixes the ranks that it concerns
and leaves all others alone, so its cost does not depend on how many ranks there are.
"""

import numpy as np

from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.dynamics.mixing import carried_jump, mixing_weight
from acidmpi.simulate.workload import Floats


class Cluster:
    """x and x_tilde of every rank.

    Args:
        start: one row for each rank; not kept.
        coefficients: shares of the jumps; without acceleration x_tilde is not held.
        accelerated: whether to hold x_tilde.
    """

    def __init__(
        self, start: Floats, coefficients: Coefficients, accelerated: bool
    ) -> None:
        self.x = start.copy()
        self.x_tilde = start.copy() if accelerated else None
        self._x: list[Floats] = list(self.x)
        self._tilde = None if self.x_tilde is None else list(self.x_tilde)
        self._theta = [0.0] * len(start)
        self._alpha, self._alpha_tilde = coefficients.alpha, coefficients.alpha_tilde
        self._flow = np.empty(start.shape[1])
        self.touched = 0
        """How many times a rank's vectors were worked on: the cost of the events."""

    @property
    def size(self) -> int:
        """Number of ranks."""
        return len(self._x)

    def at(self, rank: int, theta: float) -> Floats:
        """X of `rank`, mixed up to `theta`; a view that the next event changes."""
        self.touched += 1
        x = self._x[rank]
        if self._tilde is not None and theta != self._theta[rank]:
            tilde = self._tilde[rank]
            flow = np.subtract(tilde, x, out=self._flow)
            flow *= mixing_weight(theta - self._theta[rank])
            x += flow
            tilde -= flow
            self._theta[rank] = theta
        return x

    def raw(self, rank: int) -> Floats:
        """X of `rank` as it stands, unmixed; a view."""
        return self._x[rank]

    def update(self, rank: int, theta: float, update: Floats) -> None:
        """A gradient event: both vectors take `update`."""
        x = self.at(rank, theta)
        x += update
        if self._tilde is not None:
            self._tilde[rank] += update

    def jump(self, rank: int, m: Floats, since: float = 0.0) -> None:
        """Apply the difference `m`, as of the present less `since` in theta."""
        self.touched += 1
        flow = self._flow
        if self._tilde is None:
            self._x[rank] -= np.multiply(m, self._alpha, out=flow)
            return
        a, b = carried_jump(self._alpha, self._alpha_tilde, since)
        self._x[rank] -= np.multiply(m, a, out=flow)
        self._tilde[rank] -= np.multiply(m, b, out=flow)

    def now(self, thetas: list[float]) -> tuple[Floats, Floats]:
        """X and x_tilde of all ranks mixed up to `thetas`; new arrays, nothing changes."""
        if self.x_tilde is None:
            return self.x, self.x
        weights = [
            mixing_weight(theta - own)
            for theta, own in zip(thetas, self._theta, strict=True)
        ]
        flow = np.array(weights)[:, None] * (self.x_tilde - self.x)
        return self.x + flow, self.x_tilde - flow


def consensus_distance(x: Floats) -> float:
    """Mean over ranks (rows) of the squared distance to their average."""
    away = x - x.mean(axis=0)
    return float(np.einsum("ij,ij->", away, away)) / len(x)
