"""Averages of the model over all ranks in the middle of a run.

Every rank begins to read its (x + x̃)/2 when a heartbeat tells that the next mark is
passed: all see the same heartbeats, so all take part in the same averages in the same
order. Contributions are from slightly different moments, as everything here is. Rank 0
receives the result; nobody waits for it. Neither do exchanges: a rank reads its own part a
few blocks at a time.
"""

from collections import deque
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import wide_dtype
from acidmpi.arrays.precision import widen
from acidmpi.clocks import Clock
from acidmpi.mpi.reductions import Comm, Request, start_sum_at_root
from acidmpi.progress import Deadline, Pace, Steps
from acidmpi.worker.ledger import Ledger
from acidmpi.worker.state import RankState

Array = NDArray[Any]

LOOKS = 8

READ_BYTES = 4 << 20
"""What is read of x before anything else is looked at, in whole blocks."""


class Average(NamedTuple):
    """An average of all ranks."""

    total_gradients: int
    """Gradients of all ranks when it was taken."""

    arrays: list[Array]
    """One array for each buffer; float32 for 16-bit parameters."""


class Halves:
    """(x + x̃)/2 of this rank, read a few blocks at a time.

    Args:
        state: the parameters.
    """

    def __init__(self, state: RankState) -> None:
        self._state = state
        self._left = deque(state.blocks)
        self.arrays: list[Array] = [
            np.empty(x.size, wide_dtype(x.dtype)) for x in state.arrays
        ]
        """One for each buffer, at least float32; not all there until `read` says so."""

    def read(self, most_bytes: float = READ_BYTES) -> bool:
        """Read so much more, one block at least; whether all is there."""
        read = 0
        while self._left and read < most_bytes:
            chunk = self._left.popleft()
            half = widen(self._state.read_half(chunk))
            self.arrays[chunk.buffer][chunk.start : chunk.stop] = half
            read += half.nbytes
        return not self._left


class _Round:
    """An average under way."""

    def __init__(self, total: int, mine: Halves) -> None:
        self.total, self.mine = total, mine
        self.result: list[Array] = []
        self.requests: list[Request] | None = None
        """None until this rank's part is read."""


class Marks:
    """Totals of gradients at which an average is due; owned by whoever begins them.

    Args:
        every: gradients of all ranks between two averages, or None for none at all.
    """

    def __init__(self, every: int | None) -> None:
        self._every = every
        self._next = every

    def skip(self, total_gradients: int) -> None:
        """Averages up to here were another start's."""
        if self._every is not None:
            self._next = self._every * (total_gradients // self._every + 1)

    def reached(self, total_gradients: int) -> bool:
        """Whether a mark is passed that was not before; then wait for the one after."""
        if self._next is None or total_gradients < self._next:
            return False
        self.skip(total_gradients)
        return True


class Averaging:
    """Begins and ends averages; owned by the communication loop.

    Args:
        comm: a communicator on which nobody else communicates while the loop runs.
        state: the parameters.
        ledger: where rank 0 finds the results.
        every: gradients of all ranks between two averages, or None for none at all.
        clock: where time comes from.
        deadline_seconds: how long one may take at the end of a run.
        read_bytes: how much of x is read at a time. In logical time all of it: what is
            averaged must not depend on how often this is looked at.
    """

    def __init__(
        self,
        comm: Comm,
        state: RankState,
        ledger: Ledger,
        every: int | None,
        clock: Clock,
        deadline_seconds: float,
        read_bytes: float = READ_BYTES,
    ) -> None:
        self._comm = comm
        self._state = state
        self._ledger = ledger
        self.marks = Marks(every)
        """When averages are due."""
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._read_bytes = read_bytes
        self._rounds: deque[_Round] = deque()

    def passed(self, total_gradients: int) -> None:
        """All ranks have made so many gradients: begin an average if one is due."""
        if self.marks.reached(total_gradients):
            self._begin(total_gradients)

    def poll(self) -> None:
        """Hand over what is complete."""
        self._read()
        if self._rounds and self._complete(self._rounds[0].requests):
            done = self._rounds.popleft()
            if self._comm.rank == 0:
                for array in done.result:
                    array /= self._comm.size
                self._ledger.put_average(Average(done.total, done.result))

    @property
    def pending(self) -> bool:
        """Whether one is under way: MPI moves it on only while it is looked at."""
        return bool(self._rounds)

    def _complete(self, requests: list[Request] | None) -> bool:
        """A long reduction needs many looks: take several at a time."""
        if requests is None:
            return False
        return any(all(r.Test() for r in requests) for _ in range(LOOKS))

    def finish(self) -> Steps[None]:
        """Yield until nothing is under way."""
        deadline = Deadline(
            self._deadline_seconds, self._clock, "an average of all ranks"
        )
        while self._rounds:
            self.poll()
            deadline.check()
            yield Pace.POLL

    def _begin(self, total: int) -> None:
        self._rounds.append(_Round(total, Halves(self._state)))
        self._read()

    def _read(self) -> None:
        """Go on with the first part that is not read; the sums begin in that order."""
        at_hand = next((one for one in self._rounds if one.requests is None), None)
        if at_hand is not None and at_hand.mine.read(self._read_bytes):
            self._add_up(at_hand)

    def _add_up(self, begun: _Round) -> None:
        mine, root = begun.mine.arrays, self._comm.rank == 0
        begun.result = [
            np.empty_like(a) if root else np.empty(0, a.dtype) for a in mine
        ]
        begun.requests = [
            start_sum_at_root(self._comm, a, r)
            for a, r in zip(mine, begun.result, strict=True)
        ]
