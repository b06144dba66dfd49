"""The heartbeat of ranks that may die: the lowest survivor adds up and tells the sum.

It stands where `telemetry.heartbeat.Heartbeat` does, whose reduction ends for good when a
rank dies. Every rank hands its vector to the lowest survivor that it knows, which waits
for all who live, adds up, and tells everyone; who has died is waited for no more. When the
lowest survivor itself dies, the vectors of the round at hand are handed to the next one.

A result holds for the ranks that were counted; `counted` says how many. Survivors may miss
a result, or see two for one vector of theirs, when the one who adds up dies: results are
sums of counters that only grow, so the newest one is all that matters. The steps beside
them, of which a survivor may miss one then, measure no more than rates.

Owned by the communication loop.
"""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from acidmpi.clocks import Clock
from acidmpi.pairing.wire import BEAT, TOTAL
from acidmpi.telemetry.cadence import Cadence
from acidmpi.worker.membership import Membership

Vector = NDArray[np.float64]
Send = Callable[[int, int, bytes], None]

FIRST_INTERVAL_SECONDS = 0.02
GROWTH = 4.0
"""The pause grows faster than that of a reduction: a round is 2(n - 1) messages here, and
the first one already tells the unit of time."""


class Muster(Cadence):
    """Sums a vector of counters over the survivors.

    Args:
        membership: who lives.
        maxima: the places of the vector of which the largest counts, not the sum.
        interval_seconds: pause between rounds once the first few are over.
        deadline_seconds: how long one round may take.
        clock: where time comes from.
    """

    def __init__(
        self,
        membership: Membership,
        maxima: slice,
        interval_seconds: float,
        deadline_seconds: float,
        clock: Clock,
    ) -> None:
        super().__init__(
            FIRST_INTERVAL_SECONDS, GROWTH, interval_seconds, deadline_seconds, clock
        )
        self._membership = membership
        self.send: Send = _nowhere
        """Sends a message with a load; set by whoever has a wire."""
        self._maxima = maxima
        self._mine: Vector | None = None
        """What this rank has to say in the round at hand."""
        self._handed_to: int | None = None
        self._table: dict[int, Vector] = {}
        """What others have handed to this rank since it last added up."""
        self._result: Vector | None = None
        self.counted = membership.size
        """How many ranks the last result has counted."""

    @property
    def members(self) -> tuple[int, ...]:
        """Who lives, as this rank knows."""
        return self._membership.alive

    @property
    def pending(self) -> bool:
        """Whether a round is under way."""
        return self._mine is not None

    def hear(self, source: int, kind: int, load: bytes) -> None:
        """Take a message of kind `BEAT` or `TOTAL`."""
        vector = np.frombuffer(load, np.float64)
        if kind == BEAT:
            self._table[source] = vector
        else:
            self.counted, self._result = int(vector[-1]), vector[:-1]

    def poll(self, contribution: Callable[[], Vector]) -> Vector | None:
        """Begin a round when it is due, or return the sum of one that has just ended.

        Args:
            contribution: called when a round begins; gives this rank's vector.

        Raises:
            DeadlineExceeded: a round takes too long, though nobody has died.
        """
        if self._result is not None:
            return self._end()
        if self._mine is None:
            if self._due:
                self._begin(contribution())
            return None
        self._hand_over(self._mine)
        if self._membership.leads and self._complete:
            self._tell(self._mine)
        else:
            self._deadline.check()
        return None

    def _begin(self, vector: Vector) -> None:
        self._mine, self._handed_to = vector, None
        self._deadline.renew()
        self._hand_over(vector)

    def _hand_over(self, vector: Vector) -> None:
        """To whoever adds up now; once, unless that one dies."""
        first = self._membership.first
        if self._handed_to != first:
            self._handed_to = first
            self._deadline.renew()
            if not self._membership.leads:
                self.send(first, BEAT, vector.tobytes())

    @property
    def _complete(self) -> bool:
        return all(peer in self._table for peer in self._membership.others)

    def _tell(self, mine: Vector) -> None:
        """Add up, tell everyone, and begin to wait anew.

        Of the dead only the maxima stay: what they made is made.
        """
        members, alive = self._table, self._membership.others
        summed = np.sum([mine, *(members[peer] for peer in alive)], axis=0)
        best = np.max([mine, *members.values()], axis=0)
        summed[self._maxima] = best[self._maxima]
        self.counted, self._result = 1 + len(alive), summed
        self._table = {}
        load = np.append(summed, float(self.counted)).tobytes()
        for peer in alive:
            self.send(peer, TOTAL, load)

    def _end(self) -> Vector | None:
        result, self._result, self._mine = self._result, None, None
        self._count()
        return result


def _nowhere(peer: int, kind: int, load: bytes) -> None:
    raise AssertionError("nobody has said how to send")
