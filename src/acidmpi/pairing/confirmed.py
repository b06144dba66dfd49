"""The handshake of ranks that may die, or fall silent and come back.

As in the handshake, a due rank asks a neighbour and a free one accepts; but who accepts
is only *promised*, and matched when the one who asked confirms. So a rank need not wait
for an answer: it may set a silent neighbour aside, go on with others, and confirm or
cancel when the answer comes after all.

Guarantees:
- every REQUEST is answered at once, by ACCEPT or BUSY, unless it crosses a REQUEST of
  the receiver; every ACCEPT is answered at once, by CONFIRM or CANCEL;
- of two REQUESTs that cross, the leader's (see `leads`) stands and is answered, the
  other one is void, at both ends;
- nobody is matched with a rank that is not matched with it, or is about to be by a
  message on its way: who confirms knows that the peer is promised to it, and who is
  promised waits for nothing else. So no cycle of waits can form, whoever is set aside;
- at most one REQUEST from a rank to another one is without an answer: who is set aside
  is not asked;
- a dead rank is waited for by nobody who knows of its death, and nothing that it sent
  is heard any more. It takes with it the exchange at hand, which does not count.

A rank that is promised waits until the one who asked speaks again, or is dead: it was
that one's own exchange. CONFIRM costs a third message in every exchange.
"""

from collections.abc import Sequence
from typing import NamedTuple, final

import numpy as np

from acidmpi.pairing.choice import Asker, Draw, leads, others, preferred
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected


class State(NamedTuple):
    """One rank in the confirmed handshake."""

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
    promised: int | None = None
    """Whom this rank has accepted; it confirms or cancels."""
    aside: frozenset[int] = frozenset()
    """Neighbours whose answer is outstanding, but not waited for."""
    gone: frozenset[int] = frozenset()
    """The dead."""

    @property
    def free(self) -> bool:
        """Whether it may accept."""
        return self.matched is None and self.asking is None and self.promised is None


Step = tuple[State, Sends]


def reachable(state: State, neighbours: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours that may be asked."""
    if not (state.aside or state.gone):
        return neighbours
    out = state.aside | state.gone
    return tuple(peer for peer in neighbours if peer not in out)


def candidates(state: State, neighbours: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours among which the next start draws."""
    near = reachable(state, neighbours)
    caller = preferred(state, near)
    return others(near, state.last) if caller is None else (caller,)


def start(state: State, peer: int) -> Step:
    """Ask `peer`."""
    callers = _without(state.callers, peer)
    return state._replace(asking=peer, callers=callers), (Send(peer, Kind.REQUEST),)


def receive(state: State, rank: int, source: int, kind: int) -> Step:
    """Take one message from `source`."""
    if source in state.gone:
        return state, ()
    if kind == Kind.REQUEST:
        return _asked(state, rank, source)
    if source in (state.asking, *state.aside) and kind in (Kind.ACCEPT, Kind.BUSY):
        return _answered(state, source, kind)
    if state.promised == source and kind == Kind.CONFIRM:
        return _match(state, source, started=False), ()
    if state.promised == source and kind == Kind.CANCEL:
        return state._replace(promised=None), ()
    raise unexpected(source, kind, state.asking)


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    return state._replace(matched=None, started=False, last=state.matched), ()


def retire(state: State) -> Step:
    """Start no more; a question already asked stays asked."""
    return state._replace(retired=True), ()


def set_aside(state: State) -> Step:
    """Wait no longer for the answer at hand; it is taken whenever it comes."""
    assert state.asking is not None
    return state._replace(asking=None, aside=state.aside | {state.asking}), ()


def remove(state: State, peer: int) -> Step:
    """`peer` is dead: wait for it no more, hear it no more."""
    lost = state.matched == peer
    return state._replace(
        matched=None if lost else state.matched,
        started=state.started and not lost,
        asking=None if state.asking == peer else state.asking,
        last=None if state.last == peer else state.last,
        callers=_without(state.callers, peer),
        yielded=state.yielded - {peer},
        promised=None if state.promised == peer else state.promised,
        aside=state.aside - {peer},
        gone=state.gone | {peer},
    ), ()


def _asked(state: State, rank: int, source: int) -> Step:
    if source == state.asking or source in state.aside:
        leading = leads(state.yielded, rank, source)
        state = state._replace(yielded=state.yielded ^ {source})
        if leading:
            return state, ()  # what it asked is void; it answers this rank's question
        state = _unasked(state, source)
    if state.free:
        return state._replace(promised=source), (Send(source, Kind.ACCEPT),)
    # Also when `source` is the matched peer: it is done sooner and already asks again.
    callers = (*_without(state.callers, source), source)
    return state._replace(callers=callers), (Send(source, Kind.BUSY),)


def _answered(state: State, source: int, kind: int) -> Step:
    state = _unasked(state, source)
    if kind == Kind.BUSY:
        return state, ()
    if state.free:
        return _match(state, source, started=True), (Send(source, Kind.CONFIRM),)
    return state, (Send(source, Kind.CANCEL),)


def _unasked(state: State, source: int) -> State:
    """Nothing that this rank asked `source` is open any more."""
    if state.asking == source:
        return state._replace(asking=None)
    return state._replace(aside=state.aside - {source})


def _match(state: State, peer: int, *, started: bool) -> State:
    # Who was refused before this exchange has had time to find another peer.
    return state._replace(matched=peer, started=started, promised=None, callers=())


def _without(peers: tuple[int, ...], peer: int) -> tuple[int, ...]:
    return tuple(other for other in peers if other != peer) if peers else peers


@final
class ConfirmedMachine(Asker[State]):
    """The confirmed handshake of one rank.

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
        super().__init__(State(), rank, neighbours, weights, generator)

    @property
    def awaited(self) -> int | None:
        """The rank whose next word this one waits for: asked by it, or promised to."""
        state = self._state
        return state.promised if state.asking is None else state.asking

    @property
    def aside(self) -> frozenset[int]:
        """Ranks that were set aside and have not spoken since."""
        return self._state.aside

    @property
    def settled(self) -> bool:
        """Retired, nothing at hand, no answer outstanding: fit to enter the barrier."""
        state = self._state
        return state.retired and state.free and not state.aside

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called: somebody is there to be asked."""
        state = self._state
        return state.free and not state.retired and bool(self._reachable())

    def start(self) -> Sends:
        """Draw a neighbour and ask it."""
        assert self.can_start
        self._state, sends = start(self._state, self._chosen())
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        before = self._state
        self._state, sends = receive(before, self._rank, source, kind)
        if kind == Kind.BUSY and before.asking == source:
            self._note_refusal()
        elif self._state.matched is not None and before.matched is None:
            self._note_match(accepted=kind == Kind.ACCEPT)
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

    @property
    def can_set_aside(self) -> bool:
        """Whether `set_aside` may be called: an answer is outstanding."""
        return self._state.asking is not None

    def set_aside(self) -> Sends:
        """Wait no longer for the rank that is `asking`; its answer is taken later."""
        self._state, sends = set_aside(self._state)
        return sends

    def remove(self, peer: int) -> Sends:
        """`peer` is dead. What was at hand with it is over and does not count."""
        self._state, sends = remove(self._state, peer)
        return sends

    def rewire(self, neighbours: Sequence[int], weights: Sequence[float]) -> None:
        """New neighbours, for the next start; whoever asks is answered all the same."""
        self._look_round(tuple(neighbours), weights)

    def _reachable(self) -> tuple[int, ...]:
        return reachable(self._state, self._neighbours)

    def _draw(self) -> Draw:
        near = self._reachable()
        return super()._draw() if near == self._neighbours else self._draw_of(near)
