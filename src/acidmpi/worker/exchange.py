"""One exchange of a long vector, in chunks: while one travels others are prepared.

What is sent is x mixed to the moment of the chunk's snapshot, and the jump is computed
from exactly what was sent and what was received, so both ends use the same two numbers
and the mean of x + x̃ stays where it is, whatever lands meanwhile.
"""

from collections import deque
from collections.abc import Callable, Collection, Container, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import Chunk, chunks
from acidmpi.arrays.site import Site
from acidmpi.clocks import Clock
from acidmpi.errors import DeadlineExceeded, PeerDied, PeerFailed
from acidmpi.progress import Pace, Steps
from acidmpi.transport.protocol import Pending, Transport
from acidmpi.worker.drift import Drift
from acidmpi.worker.state import RankState

Array = NDArray[Any]

DEPTH = 2
"""Most chunks in flight, staged in both directions: 2 · DEPTH · chunk_bytes of memory.

One travels while the other is prepared or applied; more would only push each other out of
a core's cache (docs/benchmarks)."""

LOOKS = 4
"""How often a chunk is looked for before the loop looks at anything else."""


def _nothing() -> None:
    pass


class Terms(NamedTuple):
    """What the two ends of an exchange agree on."""

    peer: int
    alpha: float
    alpha_tilde: float


class _Place:
    """Staging memory of one chunk, both directions."""

    def __init__(self, site: Site, size: int) -> None:
        self.size = size
        self._sent = site.empty(size, np.uint8)
        self._received = site.empty(size, np.uint8)
        self._views: dict[tuple[int, np.dtype[Any]], tuple[Array, Array]] = {}

    def views(self, size: int, dtype: np.dtype[Any]) -> tuple[Array, Array]:
        """What is sent and what is received, as `size` numbers; made once."""
        found = self._views.get((size, dtype))
        if found is None:
            end = size * dtype.itemsize
            found = self._sent[:end].view(dtype), self._received[:end].view(dtype)
            self._views[size, dtype] = found
        return found


class _Flight(NamedTuple):
    """A chunk on the wire."""

    chunk: Chunk
    place: _Place
    sent: Array
    received: Array
    theta: float
    pending: Pending


def _longest(plan: Sequence[Chunk], arrays: Sequence[Array]) -> int:
    """Bytes of the longest chunk."""
    return max(
        ((c.stop - c.start) * arrays[c.buffer].itemsize for c in plan), default=0
    )


class Exchanger:
    """Runs exchanges of one rank, one at a time.

    Owned by the communication loop.

    Args:
        state: the parameters.
        transport: moves the bytes.
        chunk_bytes: size of a chunk; four of them should fit in a cache.
        clock: where time comes from.
        deadline_seconds: how long a chunk may take before its peer counts as failed.
        hot_seconds: how long after the last progress a wait is still called hot.
        dead: ranks that are known to have died; may grow.
        depth: most chunks in flight; their staging memory is 2 · depth · chunk_bytes.
    """

    def __init__(
        self,
        state: RankState,
        transport: Transport,
        chunk_bytes: int,
        clock: Clock,
        deadline_seconds: float,
        hot_seconds: float,
        dead: Collection[int] = (),
        depth: int = DEPTH,
    ) -> None:
        self._dead = dead
        self._state = state
        self._transport = transport
        self._clock = clock
        self.deadline_seconds = deadline_seconds
        """How long a chunk may take; whoever measures may allow more."""
        self.waiting_since: float | None = None
        """Since when a chunk is waited for, if one is."""
        self._hot_seconds = hot_seconds
        self._plan = chunks(state.arrays, chunk_bytes)
        # All of it: MPI may still write to what an abandoned exchange had in use.
        size = _longest(self._plan, state.arrays)
        self._places = [_Place(state.site, size) for _ in range(depth)]
        self._depth = depth
        self._free = list(self._places)
        self._parked: list[_Place] = []
        """Of exchanges that were called off, while MPI may read them."""
        self._flights: deque[_Flight] = deque()
        self.bytes_each_way = sum(x.nbytes for x in state.arrays)
        """Bytes that one exchange sends."""
        self.landed = 0
        """Chunks that have come so far."""
        self._drift = Drift(state.site, self._plan)
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
            PeerDied: the peer's process has died; see `drop`.
            PeerFailed: the peer cannot go on, or does not within the deadline.
        """
        flights = self._flights
        for chunk in self._plan:
            while flights and flights[0].pending.test():
                self._apply(flights.popleft(), terms)
            if not self._free:
                yield from self._wait(flights[0].pending, terms.peer)
                self._apply(flights.popleft(), terms)
            self._launch(chunk, terms.peer)
        while flights:
            if not flights[0].pending.test():
                yield from self._wait(flights[0].pending, terms.peer)
            if len(flights) == 1:
                arrived()
            self._apply(flights.popleft(), terms)
        if not self._plan:
            arrived()
        self._state.count_exchange()

    @property
    def waiting_bytes(self) -> int:
        """Bytes that are to come in what is on the wire."""
        return sum(flight.received.nbytes for flight in self._flights)

    @property
    def drift(self) -> float:
        """What all exchanges have added to this rank's (x + x̃)/2, of the sample."""
        return self.drift_without(())

    def drift_without(self, dead: Container[int]) -> float:
        """What exchanges with all but these peers have added to this rank's (x + x̃)/2."""
        return sum(v for peer, v in self.drift_with.items() if peer not in dead)

    @property
    def drift_with(self) -> dict[int, float]:
        """For each peer what exchanges with it have added, see `Drift`."""
        return self._drift.by_peer()

    @property
    def checked(self) -> int:
        """Elements that enter `drift`."""
        return self._drift.checked

    def drop(self) -> int:
        """The peer of the exchange at hand has died: end it on this side.

        Chunks that have been applied stay so; those on the wire are forgotten.

        Returns:
            How many were on the wire.
        """
        lost = len(self._flights)
        self._transport.drop()
        self._forget_flights()
        return lost

    def withdraw(self) -> int:
        """The peer has called the exchange off: nothing of it has come or will come.

        Returns:
            How many chunks, the first ones, the peer will find sent to it; see `drain`.
        """
        self._let_go()
        sent = self._transport.withdraw()
        self._parked += [flight.place for flight in self._flights]
        self._forget_flights()
        self.waiting_since = None
        return sent

    def drain(self, peer: int, count: int) -> None:
        """Take so many chunks of an exchange that this rank has called off, for nothing."""
        self._let_go()
        itemsizes = [array.dtype.itemsize for array in self._state.arrays]
        sizes = [(c.stop - c.start) * itemsizes[c.buffer] for c in self._plan[:count]]
        self._transport.drain(peer, sizes)

    @property
    def quiet(self) -> bool:
        """Whether nothing is on its way of exchanges that were called off."""
        return self._transport.is_quiet(self._dead)

    def _let_go(self) -> None:
        """Free the memory of earlier exchanges that were called off."""
        if self.quiet and not self._dead:
            self._places = [one for one in self._places if one not in self._parked]
            self._parked = []

    def _forget_flights(self) -> None:
        """The memory of what is on the wire is MPI's; have other memory instead."""
        self._flights.clear()
        size = self._places[0].size
        missing = self._depth - len(self._free)
        fresh = [_Place(self._state.site, size) for _ in range(missing)]
        self._places += fresh
        self._free += fresh

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps."""
        return {"drift_with": dict(self.drift_with)}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self._drift.restore(state["drift_with"])

    def abandon(self) -> None:
        """Give up what is on the wire."""
        self._transport.abandon()

    def _launch(self, chunk: Chunk, peer: int) -> None:
        buffer, start, stop = chunk
        place = self._free.pop()
        sent, received = place.views(stop - start, self._state.arrays[buffer].dtype)
        theta = self._state.snapshot(chunk, sent)
        pending = self._transport.post(peer, sent, received)
        self._flights.append(_Flight(chunk, place, sent, received, theta, pending))

    def _apply(self, flight: _Flight, terms: Terms) -> None:
        chunk, place, sent, received, theta, _ = flight
        self.landed += 1
        self._state.apply_exchange(
            chunk, sent, received, theta, terms.alpha, terms.alpha_tilde
        )
        half_sum = 0.5 * (terms.alpha + terms.alpha_tilde)
        self._drift.add(terms.peer, half_sum, sent, received)
        self._free.append(place)
        self.on_chunk()

    def _wait(self, pending: Pending, peer: int) -> Steps[None]:
        for _ in range(LOOKS):
            if pending.test():
                return
        began = self.waiting_since = self._clock.now()
        yield Pace.HOT
        while not pending.test():
            waited = self._clock.now() - began
            if self._dead and peer in self._dead:
                raise PeerDied(peer, "a chunk of an exchange")
            if waited > self.deadline_seconds:
                raise PeerFailed(peer, "a chunk of an exchange") from DeadlineExceeded(
                    f"nothing came for {self.deadline_seconds:g} s"
                )
            yield Pace.HOT if waited < self._hot_seconds else Pace.POLL
        self.waiting_since = None
