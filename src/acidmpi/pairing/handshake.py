"""Pairing by question and answer: a due rank asks a neighbour, a free one accepts.

Who accepts is matched at once, and so are two ranks that ask each other. Nobody need wait
for an answer: a rank may set a silent neighbour aside, go on with others, and take the
answer whenever it comes. If that finds it busy, the match, which the other one has begun
alone, is *called off*; the other one takes back what it can and says how much is on its
way all the same.

Guarantees:
- every REQUEST is answered at once: by ACCEPT, by BUSY, or by the receiver's own
  REQUEST that crosses it (both ends are matched then, and nothing more is said);
- every match that one end has begun is begun by the other one, or called off by it at
  once, before it has sent anything: a CANCEL. A CANCEL is answered at once, by DROPPED,
  unless it crosses another one;
- therefore nobody waits for anything but a message that is on its way or about to be
  sent, and no cycle of waits can form, whoever is set aside;
- at most one REQUEST from a rank to another one is without an answer, and none while a
  match of the two is being called off: who is set aside, or owes a DROPPED, is not asked;
- of two starts that cross one is counted and the other one stays due, so that the rate
  of exchanges is the one asked for;
- a rank does not ask its last peer, unless it has no other neighbour;
- a dead rank is waited for by nobody who knows of its death, and nothing that it sent
  is heard any more. It takes with it the exchange at hand, which does not count.

The state is immutable and the transitions are functions, so that tests can explore
them; `HandshakeMachine` adds chance and patience.
"""

from collections.abc import Sequence
from functools import cache
from typing import NamedTuple, final

import numpy as np

from acidmpi.pairing.choice import Asker, Draw, leads, others, preferred
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected

REQUEST, ACCEPT, BUSY = int(Kind.REQUEST), int(Kind.ACCEPT), int(Kind.BUSY)
CANCEL, DROPPED = int(Kind.CANCEL), int(Kind.DROPPED)

NOBODY: frozenset[int] = frozenset()


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
    yielded: frozenset[int] = NOBODY
    """Neighbours with whom the lead has changed hands, see `leads`."""
    aside: frozenset[int] = NOBODY
    """Neighbours whose answer is outstanding, but not waited for."""
    outdated: frozenset[int] = NOBODY
    """Of those, whom this rank has asked for what it no longer offers."""
    owing: frozenset[int] = NOBODY
    """Neighbours whose match was called off here, and who have not answered that."""
    gone: frozenset[int] = NOBODY
    """The dead."""

    @property
    def free(self) -> bool:
        """Whether it may accept."""
        return self.matched is None and self.asking is None


Step = tuple[State, Sends]


def reachable(state: State, neighbours: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours that may be asked."""
    if not (state.aside or state.owing or state.gone):
        return neighbours
    out = state.aside | state.owing | state.gone
    return tuple(peer for peer in neighbours if peer not in out)


def candidates(state: State, neighbours: tuple[int, ...]) -> tuple[int, ...]:
    """Neighbours among which the next start draws."""
    near = reachable(state, neighbours)
    caller = preferred(state, near)
    return others(near, state.last) if caller is None else (caller,)


def start(state: State, peer: int) -> Step:
    """Ask `peer`."""
    callers = _without(state.callers, peer)
    asking = _with(state, None, False, peer, state.last, callers)
    return asking, _request(peer)


def receive(state: State, rank: int, source: int, kind: int) -> Step:
    """Take one message from `source`."""
    if source in state.gone:
        return state, ()
    if kind == REQUEST:
        return _asked(state, rank, source)
    if kind == ACCEPT and source == state.asking:
        return _match(state, source, True), ()
    if kind == BUSY and source == state.asking:
        return state._replace(asking=None), ()
    if kind in (ACCEPT, BUSY) and source in state.aside:
        return _answered_late(state, source, kind)
    if kind == CANCEL and (source == state.matched or source in state.owing):
        return _cancelled(state, source)
    if kind == DROPPED and source in state.owing:
        return state._replace(owing=state.owing - {source}), ()
    raise unexpected(source, kind, state.asking)


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    return _with(state, None, False, None, state.matched, state.callers), ()


def retire(state: State) -> Step:
    """Start no more; a question already asked stays asked."""
    return state._replace(retired=True), ()


def set_aside(state: State) -> Step:
    """Wait no longer for the answer at hand; it is taken whenever it comes."""
    assert state.asking is not None
    return state._replace(asking=None, aside=state.aside | {state.asking}), ()


def outdate(state: State, peer: int) -> State:
    """Be matched by no late answer of `peer`, which was set aside."""
    assert peer in state.aside
    return state._replace(outdated=state.outdated | {peer})


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
        aside=state.aside - {peer},
        outdated=state.outdated - {peer},
        owing=state.owing - {peer},
        gone=state.gone | {peer},
    ), ()


def _asked(state: State, rank: int, source: int) -> Step:
    if source == state.asking or source in state.aside:
        return _crossed(state, rank, source)
    if state.free:
        return _match(state, source, False), (Send(source, Kind.ACCEPT),)
    # Also when `source` is the matched peer: it is done sooner and already asks again.
    callers = (*_without(state.callers, source), source)
    return state._replace(callers=callers), (Send(source, Kind.BUSY),)


def _crossed(state: State, rank: int, source: int) -> Step:
    """Both have asked each other: each end begins, or calls it off, by itself."""
    lead, yielded = leads(state.yielded, rank, source), state.yielded ^ {source}
    if source == state.asking:
        return _with(state, source, lead, None, state.last, (), yielded), ()
    return _taken_late(state._replace(yielded=yielded), source, lead)


def _answered_late(state: State, source: int, kind: int) -> Step:
    if kind == BUSY:
        return _answered(state, source), ()
    return _taken_late(state, source, True)


def _taken_late(state: State, source: int, started: bool) -> Step:
    """`source`, which was set aside, has begun: be matched with it, or call it off."""
    fresh = source not in state.outdated
    state = _answered(state, source)
    if state.free and fresh:
        return _match(state, source, started), ()
    called_off = state._replace(owing=state.owing | {source})
    return called_off, (Send(source, Kind.CANCEL),)


def _answered(state: State, source: int) -> State:
    """`source` is set aside no more."""
    away = {source}
    return state._replace(aside=state.aside - away, outdated=state.outdated - away)


def _cancelled(state: State, source: int) -> Step:
    """The peer has gone on before it read what had this rank begin."""
    if source in state.owing:  # so has this rank: neither of them has begun
        return state._replace(owing=state.owing - {source}), ()
    free = state._replace(matched=None, started=False)
    return free, (Send(source, Kind.DROPPED),)


@cache
def _request(peer: int) -> Sends:
    return (Send(peer, Kind.REQUEST),)


def _match(state: State, peer: int, started: bool) -> State:
    # Who was refused before this exchange has had time to find another peer.
    return _with(state, peer, started, None, state.last, ())


def _with(
    state: State,
    matched: int | None,
    started: bool,
    asking: int | None,
    last: int | None,
    callers: tuple[int, ...],
    yielded: frozenset[int] | None = None,
) -> State:
    """What every exchange changes; many times as fast as `_replace`."""
    _, _, _, retired, _, _, before, aside, outdated, owing, gone = state
    now = (
        matched,
        started,
        asking,
        retired,
        last,
        callers,
        before if yielded is None else yielded,
        aside,
        outdated,
        owing,
        gone,
    )
    return tuple.__new__(State, now)


def _without(peers: tuple[int, ...], peer: int) -> tuple[int, ...]:
    return tuple(other for other in peers if other != peer) if peers else peers


@final
class HandshakeMachine(Asker[State]):
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
        super().__init__(State(), rank, neighbours, weights, generator)

    @property
    def aside(self) -> frozenset[int]:
        """Ranks that were set aside and have not answered since."""
        return self._state.aside

    @property
    def settled(self) -> bool:
        """Retired, nothing at hand, no answer outstanding: fit to enter the barrier."""
        state = self._state
        return state.retired and state.free and not (state.aside or state.owing)

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called: somebody is there to be asked."""
        state = self._state
        if state.matched is not None or state.asking is not None or state.retired:
            return False
        return self._reachable() != ()

    def start(self) -> Sends:
        """Draw a neighbour and ask it."""
        assert self._state.matched is None
        self._state, sends = start(self._state, self._chosen())
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        before = self._state
        self._state, sends = receive(before, self._rank, source, kind)
        if kind == BUSY:
            if before.asking == source:
                self._note_refusal()
        elif self._state.matched is not None and before.matched is None:
            self._note_match(accepted=kind == ACCEPT)
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

    def outdate(self, peer: int) -> None:
        """`peer`, which was set aside, was asked for what this rank no longer offers."""
        self._state = outdate(self._state, peer)

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
        state = self._state
        if state.aside or state.owing or state.gone:
            return self._draw_of(self._reachable())
        return super()._draw()
