"""Whom a due rank of the handshake asks, and when it had better be asked."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Any, NamedTuple, Protocol, TypeVar, final

import numpy as np

from acidmpi.pairing.machine import Facade, Shown

PATIENCE = (2.0, 4.0)
"""Exchange times to wait after a refusal, and to listen to a neighbour: from, to."""

MOST_REFUSALS = 8
"""The wait grows with the number of refusals in a row, up to this number."""


class Remembering(Shown, Protocol):
    """The fields of a state that a choice looks at."""

    @property
    def last(self) -> int | None: ...  # noqa: D102 - see handshake.State
    @property
    def callers(self) -> tuple[int, ...]: ...  # noqa: D102


def leads(yielded: frozenset[int], rank: int, peer: int) -> bool:
    """Whether this rank is the leader of the pair; its peer always thinks the contrary.

    The lower rank leads first, and the lead changes hands whenever requests cross. Both
    ends see the same crossings, so that they agree without a message.
    """
    return (rank < peer) != (peer in yielded)


def preferred(state: Remembering, neighbours: tuple[int, ...]) -> int | None:
    """A neighbour that this rank has just refused and may ask, the newest first.

    It is probably still free, and asking it spares both sides another BUSY; the newest
    had the least time to find someone else.
    """
    if not state.callers:
        return None
    for caller in reversed(state.callers):
        if caller in neighbours and (caller != state.last or len(neighbours) == 1):
            return caller
    return None


def others(neighbours: tuple[int, ...], last: int | None) -> tuple[int, ...]:
    """All neighbours but the last peer, unless it is the only one."""
    return tuple(peer for peer in neighbours if peer != last) or neighbours


class Draw(NamedTuple):
    """A draw among peers by weights."""

    peers: tuple[int, ...]
    cumulative: tuple[float, ...]

    @classmethod
    def of(cls, peers: tuple[int, ...], weights: Sequence[float]) -> "Draw":
        """The draw among `peers` in proportion to `weights`."""
        return cls(peers, tuple(accumulate(weights)))

    def peer(self, generator: np.random.Generator) -> int:
        """One of the peers; a single one takes no chance."""
        if len(self.peers) == 1:
            return self.peers[0]
        mark = generator.random() * self.cumulative[-1]
        place = bisect_right(self.cumulative, mark)
        return self.peers[min(place, len(self.peers) - 1)]


@final
class Listening:
    """Whether the one neighbour left to ask is better waited for.

    Where all ranks are always due, both ends of an edge of a ring come to want it, and
    who comes first finds the other one busy. If both ask, each exchange costs a
    refusal; if only one of them does, every second one. So a rank asks one of its two
    neighbours and listens to the other one, the same way round on the whole ring. It
    does so only while asking at once was in vain when it was tried last: where ranks
    are not always due, nobody may call, and listening would only delay.

    This is advice: whatever it says, the protocol is the same.

    Args:
        rank: this rank.
        neighbours: ranks that it may be matched with.
    """

    def __init__(self, rank: int, neighbours: tuple[int, ...]) -> None:
        below = [peer for peer in neighbours if peer < rank]
        twofold = len(neighbours) == 2
        self._caller = max(below or neighbours) if twofold else None
        self._tried = False
        self._pays = False

    @property
    def pays(self) -> bool:
        """Whether listening may be advised at all."""
        return self._pays

    def advised(self, peers: tuple[int, ...]) -> bool:
        """Whether to listen for a while before a start asks one of `peers`."""
        return self._pays and self._concerns(peers)

    def asks(self, peers: tuple[int, ...]) -> None:
        """A start asks one of `peers`; none of them has just called."""
        self._tried = self._concerns(peers)

    def refused(self) -> None:
        """It was refused."""
        self._pays = self._pays or self._tried

    def accepted(self) -> None:
        """It was accepted."""
        self._pays = self._pays and not self._tried

    def _concerns(self, peers: tuple[int, ...]) -> bool:
        return len(peers) == 1 and peers[0] == self._caller


S = TypeVar("S", bound=Remembering)


class Asker(Facade[S]):
    """The chance and the patience of a machine that asks; the verbs are the subclass's.

    Args:
        state: where the machine begins.
        rank: this rank.
        neighbours: ranks that it may be matched with.
        weights: how often each of them is to be asked, relatively.
        generator: where the draws come from.
    """

    def __init__(
        self,
        state: S,
        rank: int,
        neighbours: Sequence[int],
        weights: Sequence[float],
        generator: np.random.Generator,
    ) -> None:
        super().__init__(state, tuple(neighbours))
        self._rank = rank
        self._generator = generator
        self._refused = 0
        self._look_round(self._neighbours, weights)

    @property
    def refused(self) -> int:
        """Refusals in a row, since the last match."""
        return self._refused

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

    def state(self) -> dict[str, Any]:
        """The generator.

        Neither the last peer nor who leads a pair: they are no great loss, and ends that
        have kept their parts at different moments would have to agree on the latter.
        """
        return {"generator": dict(self._generator.bit_generator.state)}

    def restore(self, state: dict[str, Any], units: float) -> None:
        """Go on with the chance of `state`, if it has any."""
        del units
        if state:
            self._generator.bit_generator.state = state["generator"]

    def _look_round(
        self, neighbours: tuple[int, ...], weights: Sequence[float]
    ) -> None:
        """These are the neighbours from now on."""
        self._neighbours = neighbours
        self._weights = dict(zip(neighbours, weights, strict=True))
        self._draws: dict[int | None, Draw] = {}
        self._listening = Listening(self._rank, neighbours)

    def _reachable(self) -> tuple[int, ...]:
        """Neighbours that may be asked now."""
        return self._neighbours

    def _chosen(self) -> int:
        """Whom the next start asks."""
        if len(self._neighbours) == 1:
            return self._neighbours[0]
        caller = None
        if self._state.callers:
            caller = preferred(self._state, self._reachable())
        if caller is None:
            draw = self._draw()
            self._listening.asks(draw.peers)
            return draw.peer(self._generator)
        self._listening.asks(())
        return caller

    def _note_refusal(self) -> None:
        self._refused += 1
        self._listening.refused()

    def _note_match(self, *, accepted: bool) -> None:
        self._refused = 0
        if accepted:
            self._listening.accepted()

    def _patience_times(self) -> int:
        if preferred(self._state, self._reachable()) is not None:
            return 0
        if self._refused:
            return min(self._refused, MOST_REFUSALS)
        return int(self._listening.advised(self._draw().peers))

    def _draw(self) -> Draw:
        last = self._state.last
        draw = self._draws.get(last)
        if draw is None:
            draw = self._draws[last] = self._draw_of(self._neighbours)
        return draw

    def _draw_of(self, neighbours: tuple[int, ...]) -> Draw:
        peers = others(neighbours, self._state.last)
        return Draw.of(peers, [self._weights[peer] for peer in peers])
