"""A small reduction over all ranks, again and again, that nobody waits for.

Owned by the communication loop. A round begins on a rank when the previous one is over
and the interval has passed; it ends when the slowest rank has joined, so a round tells of
slightly different moments on different ranks. All ranks see the same results in the same
order, which makes a result a safe base for decisions that all must take alike.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from mpi4py import MPI
from numpy.typing import NDArray

from acidmpi.clocks import Clock
from acidmpi.telemetry.cadence import Cadence

Vector = NDArray[np.float64]
FIRST_INTERVAL_SECONDS = 0.01
GROWTH = 2.0


class Heartbeat(Cadence):
    """Sums a vector of counters over the ranks.

    Args:
        comm: a communicator on which nobody else communicates.
        length: size of the vector.
        interval_seconds: pause between rounds once the first few are over; the first
            ones come faster, each pause twice the one before.
        deadline_seconds: how long one round may take.
        clock: where time comes from.
    """

    def __init__(
        self,
        comm: MPI.Comm,
        length: int,
        interval_seconds: float,
        deadline_seconds: float,
        clock: Clock,
    ) -> None:
        super().__init__(
            FIRST_INTERVAL_SECONDS, GROWTH, interval_seconds, deadline_seconds, clock
        )
        self._comm = comm
        self._mine: Vector = np.zeros(length)
        self._sum: Vector = np.zeros(length)
        self._request: Any = None
        self.counted: int = comm.size
        """How many ranks the last result has counted: all of them."""

    @property
    def members(self) -> tuple[int, ...]:
        """Whose sums they are: all ranks'."""
        return tuple(range(self._comm.size))

    @property
    def pending(self) -> bool:
        """Whether a round is under way."""
        return self._request is not None

    def poll(self, contribution: Callable[[], Vector]) -> Vector | None:
        """Begin a round when it is due, or return the sum of one that has just ended.

        Args:
            contribution: called when a round begins; gives this rank's vector.

        Raises:
            DeadlineExceeded: a round takes too long.
        """
        if self._request is None:
            if self._due:
                self._begin(contribution())
            return None
        if not self._request.Test():
            self._deadline.check()
            return None
        return self._end()

    def _begin(self, vector: Vector) -> None:
        self._mine[:] = vector
        self._deadline.renew()
        self._request = self._comm.Iallreduce(self._mine, self._sum, op=MPI.SUM)

    def _end(self) -> Vector:
        self._request = None
        self._count()
        return self._sum.copy()
