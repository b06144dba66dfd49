"""Whom a due rank of the handshake asks, and when it had better be asked."""

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import NamedTuple, final

import numpy as np


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
