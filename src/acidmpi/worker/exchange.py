"""One exchange of a long vector, in chunks: while one travels others are prepared.

What is sent is x mixed to the moment of the chunk's snapshot, and the jump is computed
from exactly what was sent and what was received, so both ends use the same two numbers
and the mean of x + x̃ stays where it is, whatever lands meanwhile.
"""

from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import Chunk, chunks
from acidmpi.clocks import Clock
from acidmpi.errors import DeadlineExceeded, PeerFailed
from acidmpi.progress import Pace, Steps
from acidmpi.transport.protocol import Pending, Transport
from acidmpi.worker.state import RankState, widen

Array = NDArray[Any]

DEPTH = 3
"""Chunks in flight, staged in both directions: 2 · DEPTH · chunk_bytes of memory."""

CHECKED = 64
"""Elements of a chunk that enter the drift."""


def _nothing() -> None:
    pass


class Terms(NamedTuple):
    """What the two ends of an exchange agree on."""

    peer: int
    alpha: float
    alpha_tilde: float


class _Flight(NamedTuple):
    """A chunk on the wire."""

    chunk: Chunk
    sent: Array
    received: Array
    theta: float
    pending: Pending


class Exchanger:
    """Runs exchanges of one rank, one at a time.

    Owned by the communication loop.

    Args:
        state: the parameters.
        transport: moves the bytes.
        chunk_bytes: size of a chunk; two or three of them should fit in a core's cache.
        clock: where time comes from.
        deadline_seconds: how long a chunk may take before its peer counts as failed.
        hot_seconds: how long after the last progress a wait is still called hot.
    """

    def __init__(
        self,
        state: RankState,
        transport: Transport,
        chunk_bytes: int,
        clock: Clock,
        deadline_seconds: float,
        hot_seconds: float,
    ) -> None:
        self._state = state
        self._transport = transport
        self._clock = clock
        self._deadline_seconds = deadline_seconds
        self._hot_seconds = hot_seconds
        self._plan = _stage(state.arrays, chunk_bytes)
        self.bytes_each_way = sum(sent.nbytes for _, sent, _ in self._plan)
        """Bytes that one exchange sends."""
        self.drift = 0.0
        """Sum, over exchanges and sampled elements, of the jumps of (x + x̃)/2. Summed
        over ranks it is zero when both ends of every exchange applied the same jump."""
        self.checked = sum(_checked(sent) for _, sent, _ in self._plan)
        """Elements that enter `drift`."""
        self.on_chunk: Callable[[], None] = _nothing
        """Called after each chunk; tests delay or disturb here."""

    def exchange(
        self, terms: Terms, arrived: Callable[[], None] = _nothing
    ) -> Steps[None]:
        """Average with `terms.peer`; yields until both directions are complete.

        Args:
            terms: what both ends agree on.
            arrived: called when nothing is on the wire any more, just before the last
                chunk is applied: what it sends travels meanwhile.

        Raises:
            PeerFailed: the peer cannot go on, or does not within the deadline.
        """
        flights: deque[_Flight] = deque()
        for chunk, sent, received in self._plan:
            if len(flights) == DEPTH:
                yield from self._arrival(flights[0], terms)
                self._apply(flights.popleft(), terms)
            theta = self._state.snapshot(chunk, sent)
            pending = self._transport.post(terms.peer, sent, received)
            flights.append(_Flight(chunk, sent, received, theta, pending))
        while flights:
            yield from self._arrival(flights[0], terms)
            if len(flights) == 1:
                arrived()
            self._apply(flights.popleft(), terms)
        if not self._plan:
            arrived()
        self._state.count_exchange()

    def abandon(self) -> None:
        """Give up what is on the wire."""
        self._transport.abandon()

    def _arrival(self, flight: _Flight, terms: Terms) -> Steps[None]:
        if not flight.pending.test():
            yield from self._wait(flight.pending, terms.peer)

    def _apply(self, flight: _Flight, terms: Terms) -> None:
        self._state.apply_exchange(
            flight.chunk,
            flight.sent,
            flight.received,
            flight.theta,
            terms.alpha,
            terms.alpha_tilde,
        )
        change = _checksum(flight.received) - _checksum(flight.sent)
        self.drift += 0.5 * (terms.alpha + terms.alpha_tilde) * change
        self.on_chunk()

    def _wait(self, pending: Pending, peer: int) -> Steps[None]:
        began = self._clock.now()
        yield Pace.HOT
        while not pending.test():
            waited = self._clock.now() - began
            if waited > self._deadline_seconds:
                raise PeerFailed(peer, "a chunk of an exchange") from DeadlineExceeded(
                    f"nothing came for {self._deadline_seconds:g} s"
                )
            yield Pace.HOT if waited < self._hot_seconds else Pace.POLL


def _stage(
    arrays: tuple[Array, ...], chunk_bytes: int
) -> list[tuple[Chunk, Array, Array]]:
    """Every chunk with the staging memory it will use, `DEPTH` pieces in turn."""
    sent = [np.empty(chunk_bytes, np.uint8) for _ in range(DEPTH)]
    received = [np.empty(chunk_bytes, np.uint8) for _ in range(DEPTH)]
    plan = []
    for number, chunk in enumerate(chunks(arrays, chunk_bytes)):
        dtype = arrays[chunk.buffer].dtype
        size = (chunk.stop - chunk.start) * dtype.itemsize
        slot = number % DEPTH
        plan.append(
            (chunk, sent[slot][:size].view(dtype), received[slot][:size].view(dtype))
        )
    return plan


def _sampled(values: Array) -> Array:
    """The same few elements at both ends; in one place, where they are cheap to read."""
    return values[:CHECKED]


def _checked(values: Array) -> int:
    return int(_sampled(values).size)


def _checksum(values: Array) -> float:
    """Sum of the sample: the same at both ends, to the last bit."""
    return float(np.add.reduce(widen(_sampled(values))))
