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
from acidmpi.progress import Deadline

Vector = NDArray[np.float64]
FIRST_INTERVAL_SECONDS = 0.01


class Heartbeat:
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
        self._comm = comm
        self._mine: Vector = np.zeros(length)
        self._sum: Vector = np.zeros(length)
        self._longest = interval_seconds
        self._interval = min(FIRST_INTERVAL_SECONDS, interval_seconds)
        self._period = interval_seconds
        """Time between the last two results: rounds take as long as the slowest rank."""
        self._clock = clock
        self._request: Any = None
        self._deadline = Deadline(deadline_seconds, clock, "a heartbeat of all ranks")
        self._finished_seconds = clock.now()
        self.counted: int = comm.size
        """How many ranks the last result has counted: all of them."""
        self.rounds = 0
        """Rounds completed."""
        self.hurried = False
        """Set it to leave out the pauses, as at the end of a run."""

    @property
    def members(self) -> tuple[int, ...]:
        """Whose sums they are: all ranks'."""
        return tuple(range(self._comm.size))

    @property
    def age(self) -> float:
        """Time since the last result, in intervals as they really are."""
        return self._since / self.period_seconds

    @property
    def period_seconds(self) -> float:
        """Time between results: a pause, or what the last one has really taken."""
        return max(self._interval, self._period)

    @property
    def _since(self) -> float:
        return self._clock.now() - self._finished_seconds

    def allow(self, seconds: float) -> None:
        """From the next round on, one may take so long."""
        self._deadline.seconds = seconds

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
            if self.hurried or self._since >= self._interval:
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
        self.rounds += 1
        self._interval = min(2 * self._interval, self._longest)
        self._period = self._since
        self._finished_seconds = self._clock.now()
        return self._sum.copy()
