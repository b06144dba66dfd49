"""Pairing by a schedule that all ranks know: no negotiation, reproducible.

A rank that reaches its next event sends REQUEST to the other end, once; two REQUESTs
that meet are a match, whichever came first.

Guarantees:
- events are taken in one global order, so the earliest event that is not over has two
  ends that are free for it: nobody waits in a cycle;
- a REQUEST that comes early is kept, never refused;
- a retired rank answers every REQUEST, kept or arriving, by its own, in order of
  arrival, so that no rank that is still going waits for one that has left.
"""

from collections.abc import Iterator, Sequence
from math import inf
from typing import Any, NamedTuple, final

from acidmpi.pairing.events import Meeting
from acidmpi.pairing.machine import Facade
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected


class State(NamedTuple):
    """One rank in the schedule protocol."""

    matched: int | None = None
    started: bool = False
    asking: int | None = None
    retired: bool = False
    kept: tuple[int, ...] = ()
    """Neighbours whose REQUEST came before this rank was there, in order of arrival."""


Step = tuple[State, Sends]


def start(state: State, peer: int) -> Step:
    """The next event, with `peer`, is reached."""
    send = (Send(peer, Kind.REQUEST),)
    if peer in state.kept:
        return _match(state, peer, started=True), send
    return State(None, False, peer, state.retired, state.kept), send


def receive(state: State, source: int, kind: int) -> Step:
    """Take one message from `source`."""
    if kind != Kind.REQUEST:
        raise unexpected(source, kind, state.asking)
    if state.asking == source:
        return _match(state, source, started=True), ()
    return _serve(state._replace(kept=(*state.kept, source)))


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    return _serve(State(None, False, None, state.retired, state.kept))


def retire(state: State) -> Step:
    """Reach no more events by oneself, and answer whoever reaches one."""
    return _serve(state._replace(retired=True))


def _serve(state: State) -> Step:
    free = state.matched is None and state.asking is None
    if not (state.retired and free and state.kept):
        return state, ()
    peer = state.kept[0]
    return _match(state, peer, started=False), (Send(peer, Kind.REQUEST),)


def _match(state: State, peer: int, *, started: bool) -> State:
    kept = state.kept
    if peer in kept:
        first = kept.index(peer)
        kept = kept[:first] + kept[first + 1 :]
    return State(peer, started, None, state.retired, kept)


@final
class ScheduleMachine(Facade[State]):
    """The schedule protocol of one rank.

    Args:
        neighbours: ranks that it may be matched with.
        meetings: its events in order of time, see `meetings_of`.
    """

    def __init__(self, neighbours: Sequence[int], meetings: Iterator[Meeting]) -> None:
        super().__init__(State(), tuple(neighbours))
        self._meetings = meetings
        self._next = next(meetings, None)

    @property
    def next_time(self) -> float:
        """Time of the next event in units; infinite when there is none."""
        return inf if self._next is None else self._next.time

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called, once `next_time` has come."""
        state = self._state
        return (
            state.matched is None
            and state.asking is None
            and not state.retired
            and self._next is not None
        )

    def start(self) -> Sends:
        """The next event is reached."""
        assert self.can_start
        assert self._next is not None
        self._state, sends = start(self._state, self._next.peer)
        self._next = next(self._meetings, None)
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        self._state, sends = receive(self._state, source, kind)
        return sends

    def finish(self) -> Sends:
        """The exchange at hand is over on this rank; a retired one may have another."""
        assert self._state.matched is not None
        self._state, sends = finish(self._state)
        return sends

    def retire(self) -> Sends:
        """This rank will reach no more events; it goes on answering."""
        self._state, sends = retire(self._state)
        return sends

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Leave out the events before `units`: both ends do."""
        del state
        while self._next is not None and self._next.time < units:
            self._next = next(self._meetings, None)

    def patience(self) -> float:
        """Always 0: the schedule says when."""
        return 0.0
