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

from acidmpi.pairing.choice import Asker, leads, others, preferred
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected

REQUEST, ACCEPT, BUSY = int(Kind.REQUEST), int(Kind.ACCEPT), int(Kind.BUSY)


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
        return _match(state, source, leads(state.yielded, rank, source), yielded), ()
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
    def can_start(self) -> bool:
        """Whether `start` may be called."""
        state = self._state
        return (
            state.matched is None
            and state.asking is None
            and not state.retired
            and self._neighbours != ()
        )

    def start(self) -> Sends:
        """Draw a neighbour and ask it."""
        assert self._state.matched is None
        self._state, sends = start(self._state, self._chosen())
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        self._state, sends = receive(self._state, self._rank, source, kind)
        if kind == BUSY:
            self._note_refusal()
        elif self._state.matched is not None:
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
