"""Pairing of whoever is free first, among ranks that are both due; no coordinator.

A rank that becomes due asks the neighbour that has waited longest. If it knows none, or
is refused, it tells its neighbours that it is FREE, and waits to be asked.

Guarantees:
- every REQUEST is answered at once, as in the handshake;
- refusals cannot go round for ever: after its first question, a rank that waits asks
  higher ranks only, and those never ask it back but tell it that they are FREE;
- two neighbours never both wait for ever: who refuses remembers whom, and asks it or
  tells it when it is free again;
- a retired rank counts as always waiting: it is OPEN, says so when it retires, and again
  after each exchange to its peer and to those whom it refused meanwhile.

Both ends of a match were due, and both count it.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple, final

from acidmpi.pairing.machine import Facade
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected


class State(NamedTuple):
    """One rank in the first-come-first-served protocol."""

    matched: int | None = None
    started: bool = False
    asking: int | None = None
    retired: bool = False
    waiting: bool = False
    """All neighbours know that this rank is due; no match has come of it yet."""
    known: tuple[int, ...] = ()
    """Neighbours to ask: those said to be free and those refused, first come first."""
    open: tuple[int, ...] = ()
    """Neighbours that have retired and can be asked."""


Step = tuple[State, Sends]


def start(state: State, neighbours: tuple[int, ...]) -> Step:
    """Ask the neighbour that has waited longest, or announce and wait."""
    asked = state.known[:1] or state.open[:1]
    if asked:
        return _ask(state, asked[0])
    return state._replace(waiting=True), _tell(neighbours, Kind.FREE)


def receive(
    state: State, rank: int, neighbours: tuple[int, ...], source: int, kind: int
) -> Step:
    """Take one message from `source`."""
    if kind == Kind.REQUEST:
        return _asked(state, source)
    if kind == Kind.FREE:
        return _free(state, rank, source)
    if kind == Kind.OPEN:
        return _open(state, source)
    if state.asking == source and kind == Kind.ACCEPT:
        return _match(state, source), ()
    if state.asking == source and kind == Kind.BUSY:
        return _refused(state, rank, neighbours)
    raise unexpected(source, kind, state.asking)


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    peer = state.matched
    assert peer is not None
    if not state.retired:
        return State(known=state.known, open=state.open), ()
    told = dict.fromkeys((peer, *state.known))
    return State(retired=True), _tell(told, Kind.OPEN)


def retire(state: State, neighbours: tuple[int, ...]) -> Step:
    """Start no more, and be there for everyone who is due."""
    if state.retired:
        return state, ()
    retired = State(state.matched, state.started, state.asking, retired=True)
    return retired, _tell(neighbours, Kind.OPEN)


def _asked(state: State, source: int) -> Step:
    if state.asking == source:
        return _match(state, source), ()
    idle = state.matched is None and state.asking is None
    if idle and (state.waiting or state.retired):
        return _match(state, source), (Send(source, Kind.ACCEPT),)
    if source not in state.known:
        state = state._replace(known=(*state.known, source))
    return state, (Send(source, Kind.BUSY),)


def _free(state: State, rank: int, source: int) -> Step:
    # Of two that wait the lower one asks; the higher one has told it that it waits.
    if state.retired or (state.waiting and source < rank):
        return state, ()
    if state.waiting and state.asking is None:
        return _ask(state, source)
    return state._replace(known=(*_without(state.known, source), source)), ()


def _open(state: State, source: int) -> Step:
    if state.retired:
        return state, ()
    if state.waiting and state.asking is None:
        return _ask(state, source)
    known = _without(state.known, source)
    return state._replace(known=known, open=(*_without(state.open, source), source)), ()


def _refused(state: State, rank: int, neighbours: tuple[int, ...]) -> Step:
    """Wait, and ask on; who refused remembers this rank and needs not be told."""
    if state.retired:
        free = state._replace(asking=None, known=())
        return free, _tell(state.known, Kind.OPEN)
    lower = tuple(peer for peer in state.known if peer < rank)
    higher = tuple(peer for peer in state.known if peer > rank)
    told = lower if state.waiting else _without(neighbours, state.asking)
    waiting = state._replace(asking=None, waiting=True, known=higher)
    asked = higher[:1] or state.open[:1]
    if not asked:
        return waiting, _tell(told, Kind.FREE)
    asking, sends = _ask(waiting, asked[0])
    return asking, _tell(_without(told, asked[0]), Kind.FREE) + sends


def _ask(state: State, peer: int) -> Step:
    known, others = _without(state.known, peer), _without(state.open, peer)
    asking = State(None, False, peer, False, state.waiting, known, others)
    return asking, (Send(peer, Kind.REQUEST),)


def _match(state: State, peer: int) -> State:
    known, others = _without(state.known, peer), _without(state.open, peer)
    return State(peer, not state.retired, None, state.retired, False, known, others)


def _tell(peers: Iterable[int], kind: Kind) -> Sends:
    return tuple(Send(peer, kind) for peer in peers)


def _without(peers: tuple[int, ...], peer: int | None) -> tuple[int, ...]:
    if peer not in peers:
        return peers
    return tuple(other for other in peers if other != peer)


@final
class FifoMachine(Facade[State]):
    """The first-come-first-served protocol of one rank.

    Args:
        rank: this rank.
        neighbours: ranks that it may be matched with.
    """

    def __init__(self, rank: int, neighbours: Sequence[int]) -> None:
        super().__init__(State(), tuple(neighbours))
        self._rank = rank

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called: not while waiting for an earlier one."""
        state = self._state
        return (
            state.matched is None
            and state.asking is None
            and not state.retired
            and not state.waiting
            and bool(self._neighbours)
        )

    def start(self) -> Sends:
        """Ask the neighbour that has waited longest, or announce and wait."""
        assert self.can_start
        self._state, sends = start(self._state, self._neighbours)
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        self._state, sends = receive(
            self._state, self._rank, self._neighbours, source, kind
        )
        return sends

    def finish(self) -> Sends:
        """The exchange at hand is over on this rank."""
        self._state, sends = finish(self._state)
        return sends

    def retire(self) -> Sends:
        """This rank will start no more; it goes on answering."""
        self._state, sends = retire(self._state, self._neighbours)
        return sends

    def patience(self) -> float:
        """Always 0: a rank that is refused goes on by itself."""
        return 0.0
