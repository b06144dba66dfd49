"""Averages in the middle of a run, of ranks that may die meanwhile.

They stand where `worker.averaging.Averaging` does, whose reduction ends for good when a
rank dies. The lowest survivor calls for the average and takes one rank's part after the
other, so that it holds two copies of the model, not one for each rank; who dies before all
of its part has come is left out. When the lowest survivor itself dies, the average is lost
and the next one comes at the next mark.

Owned by the communication loop.
"""

from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.clocks import Clock
from acidmpi.mpi.reductions import (
    Comm,
    MPIError,
    Request,
    start_receiving,
    start_sending,
)
from acidmpi.pairing.wire import CALL
from acidmpi.progress import Deadline, Pace, Steps
from acidmpi.worker.averaging import Average, Halves, Marks
from acidmpi.worker.ledger import ENDED, Ledger
from acidmpi.worker.membership import Membership
from acidmpi.worker.state import RankState

Array = NDArray[Any]

FIRST_TAG, TAGS = 1 << 4, 1 << 14

Start = Callable[[Comm, Array, int, int], Request]


class _Parcel(NamedTuple):
    """Arrays on their way, to or from one rank."""

    peer: int
    arrays: list[Array]
    requests: list[Request]


class _Round:
    """An average that this rank collects."""

    def __init__(self, number: int, total: int, mine: Halves) -> None:
        self.number, self.total = number, total
        self.mine = mine
        self.sums = mine.arrays
        self.counted = 1
        self.left: deque[int] = deque()
        self.coming: _Parcel | None = None


class Collecting:
    """Begins and ends averages.

    Args:
        comm: a communicator on which nobody else communicates while the loop runs.
        membership: who lives.
        state: the parameters.
        ledger: where the lowest survivor finds the results.
        every: gradients of all ranks between two averages, or None for none at all.
        clock: where time comes from.
        deadline_seconds: how long the last ones may take at the end of a run.
    """

    def __init__(
        self,
        comm: Comm,
        membership: Membership,
        state: RankState,
        ledger: Ledger,
        every: int | None,
        clock: Clock,
        deadline_seconds: float,
    ) -> None:
        self._comm = comm
        self._membership = membership
        self._state = state
        self._ledger = ledger
        self.marks = Marks(every)
        """When averages are due."""
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._number = 0
        self._rounds: deque[_Round] = deque()
        self._called: deque[tuple[int, int, Halves]] = deque()
        """Parts that are being read: for whom, of which average."""
        self._leaving: list[_Parcel] = []
        self._lost: list[_Parcel] = []
        """Parcels of the dead: MPI may still use their memory."""
        self.send: Callable[[int, int, bytes], None] = _nowhere
        """Sends a message with a load; set by whoever has a wire."""

    @property
    def pending(self) -> bool:
        """Whether one is under way here."""
        return bool(self._rounds or self._called or self._leaving)

    def passed(self, total_gradients: int) -> None:
        """All ranks have made so many gradients: call for an average if one is due."""
        due = self.marks.reached(total_gradients)
        if due and self._membership.leads and not self._ledger.flags & ENDED:
            self._begin(total_gradients)

    def hear(self, source: int, load: bytes) -> None:
        """`source` calls for this rank's part."""
        (number,) = np.frombuffer(load, np.int64).tolist()
        self._called.append((source, number, Halves(self._state)))
        self._read()

    def poll(self) -> None:
        """Take what has come, read on, and see what has left."""
        self._read()
        self._leaving = [one for one in self._leaving if not self._gone(one)]
        if self._rounds:
            self._collect(self._rounds[0])

    def finish(self) -> Steps[None]:
        """Yield until nothing is under way."""
        deadline = Deadline(
            self._deadline_seconds, self._clock, "an average of all ranks"
        )
        while self.pending:
            self.poll()
            deadline.check()
            yield Pace.POLL

    def _read(self) -> None:
        """Go on with the first part that was called for; once read, it leaves."""
        if not self._called or not self._called[0][2].read():
            return
        source, number, halves = self._called.popleft()
        parcel = self._parcel(start_sending, halves.arrays, source, number)
        self._leaving.append(parcel)

    def _begin(self, total: int) -> None:
        self._number += 1
        begun = _Round(self._number, total, Halves(self._state))
        load = np.array([self._number], np.int64).tobytes()
        for peer in self._membership.others:
            self.send(peer, CALL, load)
            begun.left.append(peer)
        self._rounds.append(begun)

    def _collect(self, at_hand: _Round) -> None:
        if not at_hand.mine.read():
            return
        parcel = at_hand.coming
        if parcel is not None:
            if not self._gone(parcel):
                return
            if not any(parcel is lost for lost in self._lost):
                for total, array in zip(at_hand.sums, parcel.arrays, strict=True):
                    total += array
                at_hand.counted += 1
            at_hand.coming = None
        if at_hand.left:
            at_hand.coming = self._expect(at_hand, at_hand.left.popleft())
        else:
            self._conclude(at_hand)

    def _expect(self, at_hand: _Round, peer: int) -> _Parcel | None:
        if peer in self._membership.dead:
            return None
        arrays = [np.empty_like(array) for array in at_hand.sums]
        return self._parcel(start_receiving, arrays, peer, at_hand.number)

    def _parcel(
        self, start: Start, arrays: list[Array], peer: int, number: int
    ) -> _Parcel:
        """Arrays on their way; fewer requests than arrays where the peer has died."""
        requests: list[Request] = []
        with suppress(MPIError):
            for array in arrays:
                requests += [start(self._comm, array, peer, FIRST_TAG + number % TAGS)]
        return _Parcel(peer, arrays, requests)

    def _conclude(self, done: _Round) -> None:
        self._rounds.popleft()
        for array in done.sums:
            array /= done.counted
        self._ledger.put_average(Average(done.total, done.sums))

    def _gone(self, parcel: _Parcel) -> bool:
        """Whether a parcel needs no more attention: it is complete, or lost."""
        lost = len(parcel.requests) < len(parcel.arrays)
        try:
            if not lost and all(request.Test() for request in parcel.requests):
                return True
        except MPIError:
            lost = True
        if lost or parcel.peer in self._membership.dead:
            self._lost.append(parcel)
            return True
        return False


def _nowhere(peer: int, kind: int, load: bytes) -> None:
    raise AssertionError("nobody has said how to send")
