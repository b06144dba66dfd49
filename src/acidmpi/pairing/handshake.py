"""Pairing by question and answer: a due rank asks a neighbour, a free one accepts.

Guarantees:
- every REQUEST is answered at once: by ACCEPT, by BUSY, or by the receiver's own
  REQUEST that crosses it (both ends are matched then, and nothing more is said);
- therefore nobody waits for anything but a message that is on its way or about to be
  sent, and no cycle of waits can form;
- of two starts that cross one is counted and the other one stays due, so that the rate
  of exchanges is the one asked for;
- a rank does not ask its last peer, unless it has no other neighbour.

The state is immutable and the transitions are functions, so that tests can explore
them; `HandshakeMachine` adds chance and patience.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from acidmpi.pairing.choice import Draw, Listening
from acidmpi.pairing.machine import Facade
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected

REQUEST, ACCEPT, BUSY = int(Kind.REQUEST), int(Kind.ACCEPT), int(Kind.BUSY)

PATIENCE = (2.0, 4.0)
"""Exchange times to wait after a refusal, and to listen to a neighbour: from, to."""

MOST_REFUSALS = 8
"""The wait grows with the number of refusals in a row, up to this number."""


class State(NamedTuple):
    """One rank in the handshake protocol."""

    matched: int | None = None
    started: bool = False
    asking: int | None = None
    retired: bool = False
    last: int | None = None
    """Peer of the last exchange that is over."""
    callers: tuple[int, ...] = ()
    """Neighbours refused since the last match, the newest last."""
    yielded: frozenset[int] = frozenset()
    """Neighbours with whom the lead has changed hands, see `leads`."""


Step = tuple[State, Sends]


def leads(state: State, rank: int, peer: int) -> bool:
    """Whether this rank is the leader of the pair; its peer always thinks the contrary.

    The lower rank leads first, and the lead changes hands whenever requests cross. Both
    ends see the same crossings, so that they agree without a message.
    """
    return (rank < peer) != (peer in state.yielded)


def preferred(state: State, neighbours: tuple[int, ...]) -> int | None:
    """A neighbour that this rank has just refused and may ask, the newest first.

    It is probably still free, and asking it spares both sides another BUSY; the newest
    had the least time to find someone else.
    """
    if not state.callers:
        return None
    for caller in reversed(state.callers):
        if caller != state.last or len(neighbours) == 1:
            return caller
    return None


def others(neighbours: tuple[int, ...], last: int | None) -> tuple[int, ...]:
    """All neighbours but the last peer, unless it is the only one."""
    return tuple(peer for peer in neighbours if peer != last) or neighbours


def candidates(state: State, neighbours: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours among which the next start draws."""
    caller = preferred(state, neighbours)
    return others(neighbours, state.last) if caller is None else (caller,)


def start(state: State, peer: int) -> Step:
    """Ask `peer`."""
    callers = state.callers
    if callers:
        callers = tuple(caller for caller in callers if caller != peer)
    asking = State(None, False, peer, state.retired, state.last, callers, state.yielded)
    return asking, (Send(peer, Kind.REQUEST),)


def receive(state: State, rank: int, source: int, kind: int) -> Step:
    """Take one message from `source`."""
    if kind == REQUEST:
        return _asked(state, rank, source)
    if state.asking == source and kind == ACCEPT:
        return _match(state, source, True, state.yielded), ()
    if state.asking == source and kind == BUSY:
        return state._replace(asking=None), ()
    raise unexpected(source, kind, state.asking)


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    free = State(
        None, False, None, state.retired, state.matched, state.callers, state.yielded
    )
    return free, ()


def retire(state: State) -> Step:
    """Start no more; a question already asked stays asked."""
    return state._replace(retired=True), ()


def _asked(state: State, rank: int, source: int) -> Step:
    if state.asking == source:
        yielded = state.yielded ^ {source}
        return _match(state, source, leads(state, rank, source), yielded), ()
    if state.matched is None and state.asking is None:
        matched = _match(state, source, False, state.yielded)
        return matched, (Send(source, Kind.ACCEPT),)
    # Also when `source` is the matched peer: it is done sooner and already asks again.
    callers = (*(caller for caller in state.callers if caller != source), source)
    return state._replace(callers=callers), (Send(source, Kind.BUSY),)


def _match(state: State, peer: int, started: bool, yielded: frozenset[int]) -> State:
    # Who was refused before this exchange has had time to find another peer.
    return State(peer, started, None, state.retired, state.last, (), yielded)


@final
class HandshakeMachine(Facade[State]):
    """The handshake protocol of one rank.

    Args:
        rank: this rank.
        neighbours: ranks that it may be matched with.
        weights: how often each of them is to be asked, relatively.
        generator: where the draws come from.
    """

    def __init__(
        self,
        rank: int,
        neighbours: Sequence[int],
        weights: Sequence[float],
        generator: np.random.Generator,
    ) -> None:
        super().__init__(State(), tuple(neighbours))
        self._rank = rank
        self._weights = dict(zip(neighbours, weights, strict=True))
        self._generator = generator
        self._draws: dict[int | None, Draw] = {}
        self._listening = Listening(rank, self._neighbours)
        self._refused = 0

    @property
    def refused(self) -> int:
        """Refusals in a row, since the last match."""
        return self._refused

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called."""
        state = self._state
        return (
            state.matched is None
            and state.asking is None
            and not state.retired
            and bool(self._neighbours)
        )

    def start(self) -> Sends:
        """Draw a neighbour and ask it."""
        assert self.can_start
        caller = preferred(self._state, self._neighbours)
        peer = self._drawn_peer() if caller is None else caller
        if caller is not None:
            self._listening.asks(())
        self._state, sends = start(self._state, peer)
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        self._state, sends = receive(self._state, self._rank, source, kind)
        if kind == BUSY:
            self._refused += 1
            self._listening.refused()
        elif self._state.matched is not None:
            self._refused = 0
            if kind == ACCEPT:
                self._listening.accepted()
        return sends

    def finish(self) -> Sends:
        """The exchange at hand is over on this rank."""
        assert self._state.matched is not None
        self._state, sends = finish(self._state)
        return sends

    def retire(self) -> Sends:
        """This rank will start no more; it goes on answering."""
        self._state, sends = retire(self._state)
        return sends

    def patience(self) -> float:
        """How long to wait before the next `start`, in exchange times.

        To be drawn once after each `finish` and after each BUSY received.
        """
        if not self._refused and not self._listening.pays:
            return 0.0
        times = self._patience_times()
        if times == 0:
            return 0.0
        shortest, longest = PATIENCE
        return times * (shortest + (longest - shortest) * self._generator.random())

    def _drawn_peer(self) -> int:
        draw = self._draw()
        self._listening.asks(draw.peers)
        return draw.peer(self._generator)

    def _patience_times(self) -> int:
        if preferred(self._state, self._neighbours) is not None:
            return 0
        if self._refused:
            return min(self._refused, MOST_REFUSALS)
        return int(self._listening.advised(self._draw().peers))

    def _draw(self) -> Draw:
        last = self._state.last
        draw = self._draws.get(last)
        if draw is None:
            peers = others(self._neighbours, last)
            weights = [self._weights[peer] for peer in peers]
            draw = self._draws[last] = Draw.of(peers, weights)
        return draw
