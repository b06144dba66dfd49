"""Pairing by roles, for AD-PSGD: active ranks ask, passive ranks answer.

Every edge joins an active and a passive rank. An active rank that is due draws one of its
neighbours by the edges' weights, the last peer included, asks it, and waits for its turn
there; a passive rank accepts whoever asks, one after the other in the order in which they
asked.

Guarantees:
- nobody is refused, so an exchange costs two messages, and the draw alone decides who
  exchanges with whom;
- only active ranks wait for an answer, and the passive rank that owes it waits for nobody
  but the peer of the exchange that it is in: no cycle of waits can form;
- a retired passive rank goes on accepting.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple, final

import numpy as np

from acidmpi.pairing.choice import Draw
from acidmpi.pairing.machine import Facade
from acidmpi.pairing.messages import Kind, Send, Sends, unexpected


class State(NamedTuple):
    """One rank in the protocol of roles."""

    matched: int | None = None
    started: bool = False
    asking: int | None = None
    retired: bool = False
    kept: tuple[int, ...] = ()
    """Active neighbours that wait for their turn, in order of arrival."""


Step = tuple[State, Sends]


def start(state: State, peer: int) -> Step:
    """An active rank asks the passive `peer`."""
    return state._replace(asking=peer), (Send(peer, Kind.REQUEST),)


def receive(state: State, active: bool, source: int, kind: int) -> Step:
    """Take one message from `source`."""
    if active and kind == Kind.ACCEPT and state.asking == source:
        return State(source, True, None, state.retired), ()
    if not active and kind == Kind.REQUEST:
        return _serve(state._replace(kept=(*state.kept, source)))
    raise unexpected(source, kind, state.asking)


def finish(state: State) -> Step:
    """The exchange at hand is over on this side."""
    return _serve(State(None, False, None, state.retired, state.kept))


def retire(state: State) -> Step:
    """Ask no more; a question already asked stays asked, and others' are answered."""
    return state._replace(retired=True), ()


def _serve(state: State) -> Step:
    """Accept who has waited longest, if this rank is free."""
    if state.matched is not None or not state.kept:
        return state, ()
    peer, *others = state.kept
    accepted = State(peer, False, None, state.retired, tuple(others))
    return accepted, (Send(peer, Kind.ACCEPT),)


@final
class RolesMachine(Facade[State]):
    """The protocol of roles of one rank.

    Args:
        neighbours: ranks of the other role that it may be matched with.
        weights: how often each of them is to be asked, relatively.
        generator: where an active rank's draws come from.
        active: whether this rank asks; else it answers.
    """

    def __init__(
        self,
        neighbours: Sequence[int],
        weights: Sequence[float],
        generator: np.random.Generator,
        *,
        active: bool,
    ) -> None:
        super().__init__(State(), tuple(neighbours))
        self._draw = Draw.of(self._neighbours, weights)
        self._generator = generator
        self._active = active

    @property
    def can_start(self) -> bool:
        """Whether `start` may be called: never on a passive rank."""
        state = self._state
        return (
            self._active
            and state.matched is None
            and state.asking is None
            and not state.retired
            and bool(self._neighbours)
        )

    def start(self) -> Sends:
        """Draw a passive neighbour and ask it."""
        assert self.can_start
        self._state, sends = start(self._state, self._draw.peer(self._generator))
        return sends

    def receive(self, source: int, kind: int) -> Sends:
        """Take the next message of the channel from `source`."""
        self._state, sends = receive(self._state, self._active, source, kind)
        return sends

    def finish(self) -> Sends:
        """The exchange at hand is over on this rank; a passive one may have another."""
        assert self._state.matched is not None
        self._state, sends = finish(self._state)
        return sends

    def retire(self) -> Sends:
        """This rank will ask no more; it goes on answering."""
        self._state, sends = retire(self._state)
        return sends

    def state(self) -> dict[str, Any]:
        """The generator."""
        return {"generator": dict(self._generator.bit_generator.state)}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on with the chance of `state`, if it has any."""
        del units
        if state:
            self._generator.bit_generator.state = state["generator"]

    def patience(self) -> float:
        """Always 0: nobody is refused."""
        return 0.0
