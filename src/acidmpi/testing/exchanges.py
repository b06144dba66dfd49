"""What exchanges must do: ranks that write their events down, and a replay in float64.

A `RecordingState` notes each event in the order in which its lock let it happen. `replay`
lets the events of all ranks happen again in the reference, where every jump takes place
at the moment of its snapshot. A `Rehearsal` is a few ranks of one process which exchange
while chance decides who goes on, and where gradients and time fall in between.
"""

import math
import threading
from collections.abc import Callable, Hashable, Iterator, Sequence
from itertools import count
from typing import Any, NamedTuple, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from acidmpi.arrays.flat import Chunk
from acidmpi.arrays.precision import narrow, widen
from acidmpi.clocks import ManualClock
from acidmpi.dynamics.coefficients import Coefficients
from acidmpi.dynamics.events import Gradient, ReferenceRank, Snapshot
from acidmpi.kernels.hyper import Add
from acidmpi.kernels.protocol import Kernels
from acidmpi.progress import Steps
from acidmpi.transport.loopback import LoopbackHub, LoopbackPending, LoopbackTransport
from acidmpi.worker.exchange import Exchanger, Terms
from acidmpi.worker.state import Guard, RankState, Update

Array = NDArray[Any]
Floats = NDArray[np.float64]


class Landing(NamedTuple):
    """`rank` applies a chunk of the exchange `label` with `peer`."""

    rank: int
    peer: int
    label: Hashable
    start: int
    coefficients: Coefficients
    sent: bytes
    received: bytes


Event = Gradient | Snapshot | Landing


class NumberedLock:
    """A re-entrant lock that numbers its turns, so that events can be put into order."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._turns = 0
        self._own = threading.local()

    @property
    def turn(self) -> int:
        """Number of the last turn of this thread."""
        return int(self._own.turn)

    def __enter__(self) -> Self:
        self._lock.acquire()
        self._turns += 1
        self._own.turn = self._turns
        return self

    def __exit__(self, *error: object) -> None:
        self._lock.release()


class RecordingState(RankState):
    """A state that writes down its events; updates must be `Add`.

    Give it its `rank`, and `RecordingExchanger` as its exchanger.
    """

    def __init__(self, arrays: Sequence[Array], *others: Any, **options: Any) -> None:
        super().__init__(arrays, *others, **options)
        self.lock = NumberedLock()  # type: ignore[assignment]
        self.rank = 0
        self.meeting: tuple[int, Hashable] | None = None
        """Peer and label of the exchange at hand; outside of it snapshots are not noted."""
        self._turns: list[tuple[int, Event]] = []
        self._moment = threading.local()
        self._begins = np.cumsum([0, *(x.size for x in arrays)])

    @property
    def events(self) -> list[Event]:
        """What happened so far, in order."""
        return [event for _, event in sorted(self._turns, key=lambda turn: turn[0])]

    def snapshot(self, chunk: Chunk, out: Array) -> float:
        """Note the moment."""
        theta = super().snapshot(chunk, out)
        if self.meeting is not None:
            start, stop = self._span(chunk)
            self._note(Snapshot(self.rank, theta, self.meeting[1], start, stop))
        return theta

    def apply_exchange(
        self,
        chunk: Chunk,
        sent: Array,
        received: Array,
        theta: float,
        alpha: float,
        alpha_tilde: float,
    ) -> None:
        """Note both messages and the shares."""
        assert self.meeting is not None
        super().apply_exchange(chunk, sent, received, theta, alpha, alpha_tilde)
        peer, label = self.meeting
        shares = Coefficients(0.0, alpha, alpha_tilde)
        start, _ = self._span(chunk)
        messages = sent.tobytes(), received.tobytes()
        self._note(Landing(self.rank, peer, label, start, shares, *messages))

    def apply_gradient(
        self, updates: Sequence[Update], guard: Guard | None = None
    ) -> None:
        """Note the moment and the sum of the updates."""
        total = np.zeros(self._begins[-1])
        for update in updates:
            assert isinstance(update.hyper, Add)
            start, stop = self._span(update)
            total[start:stop] += widen(update.gradient)
        super().apply_gradient(updates, guard)
        self._note(Gradient(self.rank, self._moment.theta, total))

    def _now(self) -> float:
        self._moment.theta = super()._now()
        return float(self._moment.theta)

    def _note(self, event: Event) -> None:
        lock: Any = self.lock
        self._turns.append((lock.turn, event))

    def _span(self, part: Chunk | Update) -> tuple[int, int]:
        begin = int(self._begins[part.buffer])
        return begin + part.start, begin + part.stop


class RecordingExchanger(Exchanger):
    """Tells its state with whom it is, and which of their exchanges this is."""

    def exchange(
        self, terms: Terms, arrived: Callable[[], None] = lambda: None
    ) -> Steps[None]:
        """Both ends give the same label to the same exchange."""
        state = self._state
        assert isinstance(state, RecordingState)
        past = self.__dict__.setdefault("past", {})
        past[terms.peer] = number = past.get(terms.peer, 0) + 1
        pair = sorted((state.rank, terms.peer))
        state.meeting = terms.peer, (*pair, number)
        yield from super().exchange(terms, arrived)
        state.meeting = None


def replay(
    start: Sequence[Floats], logs: Sequence[Sequence[Event]]
) -> list[ReferenceRank]:
    """Let all events happen in float64, each rank's in its own order.

    A jump waits until both ends have read their chunk; the order of events of different
    ranks has no other meaning.
    """
    ranks = [ReferenceRank(x) for x in start]
    sent: dict[tuple[int, Hashable, int], Floats] = {}
    waiting = [iter(log) for log in logs]
    heads = [next(log, None) for log in waiting]
    while any(head is not None for head in heads):
        ready = [r for r, head in enumerate(heads) if _possible(head, sent)]
        assert ready, "a chunk was applied whose peer never read it"
        for r in ready:
            _happen(ranks[r], heads[r], sent)
            heads[r] = next(waiting[r], None)
    return ranks


def _possible(
    event: Event | None, sent: dict[tuple[int, Hashable, int], Floats]
) -> bool:
    if isinstance(event, Landing):
        return (event.peer, event.label, event.start) in sent
    return event is not None


def _happen(
    rank: ReferenceRank,
    event: Event | None,
    sent: dict[tuple[int, Hashable, int], Floats],
) -> None:
    match event:
        case Gradient(_, theta, update):
            rank.gradient(theta, update)
        case Snapshot(r, theta, label, start, stop):
            sent[r, label, start] = rank.snapshot(theta, label, start, stop)
        case Landing(r, peer, label, start, coefficients):
            m = sent[r, label, start] - sent[peer, label, start]
            rank.jump(label, start, m, coefficients)


class Chance(Protocol):
    """A `random.Random`, or a generator of hypothesis that can shrink what it drew."""

    def random(self) -> float: ...  # noqa: D102 - as in the standard library

    def randrange(self, start: int, stop: int) -> int: ...  # noqa: D102

    def choice(self, seq: Sequence[Any]) -> Any: ...  # noqa: D102


class ManualUnits:
    """Time in units that stands still until it is moved."""

    def __init__(self) -> None:
        self._now = 0.0

    def now(self) -> float:
        """Units set so far."""
        return self._now

    def advance(self, units: float) -> None:
        """Move forward."""
        self._now += units


class Plot(NamedTuple):
    """What a rehearsal is about."""

    dtype: str = "float64"
    ranks: int = 2
    sizes: tuple[int, ...] = (37, 50)
    """Lengths of the buffers."""
    chunk_bytes: int = 64
    accelerated: bool = True
    eta: float = 1.0
    steps: tuple[float, ...] = (0.0, 0.01, 0.2, 0.9)
    """Units by which time may jump; the last is more than a jump may be carried back."""
    gradients: bool = True
    ration: float = math.inf
    """The most that θ may grow for each exchange."""
    alpha_tilde: float | None = None
    """None: another one for each exchange."""


class Rehearsal:
    """Ranks of one process that exchange by a loopback, disturbed where chance says.

    Args:
        chance: decides everything.
        kernels: the backend.
        plot: what happens.
        state: the class of the states.
        exchanger: the class of the exchangers.
    """

    def __init__(
        self,
        chance: Chance,
        kernels: Kernels,
        plot: Plot,
        state: type[RecordingState] = RecordingState,
        exchanger: type[Exchanger] = RecordingExchanger,
    ) -> None:
        self.plot = plot
        self._chance = chance
        self._seeds = count()
        self.units = [ManualUnits() for _ in range(plot.ranks)]
        self.states: list[RecordingState] = []
        self.exchangers: list[Exchanger] = []
        hub = LoopbackHub(plot.ranks)
        for rank, units in enumerate(self.units):
            arrays = [self._draw(size) for size in plot.sizes]
            made = state(arrays, kernels, units, plot.accelerated, plot.ration)
            made.rank = rank
            made.set_eta(plot.eta)
            transport = HesitantTransport(hub, rank, self)
            runner = exchanger(
                made, transport, plot.chunk_bytes, ManualClock(), 1.0, 0.0
            )
            runner.on_chunk = lambda rank=rank: self.disturb(rank)  # type: ignore[misc]
            self.states.append(made)
            self.exchangers.append(runner)
        self.start = [flat(made.arrays) for made in self.states]
        """x of every rank at the start."""

    def run(self, exchanges: int) -> None:
        """So many exchanges, one after the other, each between two ranks."""
        for _ in range(exchanges):
            first = self._chance.randrange(0, self.plot.ranks)
            second = self._chance.randrange(0, self.plot.ranks - 1)
            self._exchange(first, second + (second >= first))

    def disturb(self, rank: int) -> None:
        """Something may happen to `rank` at this moment."""
        what = self._chance.random()
        if what < 0.3:
            self.units[rank].advance(self._chance.choice(self.plot.steps))
        elif what < 0.5 and self.plot.gradients:
            self.gradient(rank)

    def hesitates(self) -> bool:
        """Whether the network takes a moment longer."""
        return self._chance.random() < 0.3

    def gradient(self, rank: int) -> None:
        """An update of two random slices that leaves gaps."""
        updates = []
        for buffer, size in enumerate(self.plot.sizes):
            start = self._chance.randrange(0, size)
            stop = self._chance.randrange(start, size + 1)
            values = self._draw(stop - start)
            updates.append(Update(buffer, start, stop, values, (), Add()))
        self.states[rank].apply_gradient(updates)

    def logs(self) -> list[list[Event]]:
        """What happened to each rank."""
        return [state.events for state in self.states]

    def seen(self, rank: int) -> tuple[Floats, Floats]:
        """X of this moment and (x + x̃)/2, as float64; changes nothing."""
        state = self.states[rank]
        x = [np.empty_like(a) for a in state.arrays]
        half = [np.empty_like(a) for a in state.arrays]
        for chunk in state.blocks:
            state.snapshot(chunk, x[chunk.buffer][chunk.start : chunk.stop])
            state.half_sum(chunk, half[chunk.buffer][chunk.start : chunk.stop])
        return flat(x), flat(half)

    def theta(self, rank: int) -> float:
        """θ of this moment."""
        return self.states[rank].snapshot(
            Chunk(0, 0, 0), self.states[rank].arrays[0][:0]
        )

    def _exchange(self, first: int, second: int) -> None:
        alpha_tilde = self.plot.alpha_tilde
        if alpha_tilde is None:
            alpha_tilde = 0.5 + 2.0 * self._chance.random()
        sides = {
            one: self.exchangers[one].exchange(Terms(other, 0.5, alpha_tilde))
            for one, other in ((first, second), (second, first))
        }
        while sides:
            rank = self._chance.choice(sorted(sides))
            self.disturb(self._chance.randrange(0, self.plot.ranks))
            if next(sides[rank], None) is None:
                del sides[rank]

    def _draw(self, size: int) -> Array:
        """Random numbers; what they are matters little, so chance need not draw each."""
        values = np.random.default_rng(next(self._seeds)).standard_normal(size)
        return narrow(values, np.dtype(self.plot.dtype))


class HesitantTransport(LoopbackTransport):
    """A loopback that lets other things happen whenever it is used."""

    def __init__(self, hub: LoopbackHub, rank: int, rehearsal: Rehearsal) -> None:
        super().__init__(hub, rank)
        self._rehearsal = rehearsal

    def post(self, peer: int, send: Array, receive: Array) -> LoopbackPending:
        """A moment passes after it."""
        pending = super().post(peer, send, receive)
        hesitant = _Hesitant(pending, self._rehearsal)
        self._rehearsal.disturb(self._rank)
        return hesitant  # type: ignore[return-value]


class _Hesitant:
    """Not complete at once, even if it could be."""

    def __init__(self, pending: LoopbackPending, rehearsal: Rehearsal) -> None:
        self._pending = pending
        self._rehearsal = rehearsal

    def test(self) -> bool:
        return not self._rehearsal.hesitates() and self._pending.test()


def flat(arrays: Sequence[Array]) -> Floats:
    """All buffers as one vector of float64."""
    return np.concatenate([widen(a).astype(np.float64) for a in arrays])


def landings(log: Sequence[Event]) -> Iterator[Landing]:
    """The chunks that a rank has applied."""
    return (event for event in log if isinstance(event, Landing))
