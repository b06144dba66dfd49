"""What exchanges add to a rank's (x + x̃)/2, of a sample: over all ranks it is nothing.

Owned by the communication loop.
"""

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from acidmpi.arrays.flat import Array, Chunk
from acidmpi.arrays.precision import widen
from acidmpi.arrays.site import Fetch, Site

CHECKED = 64
"""Elements of a chunk that enter the drift."""


class _Jump(NamedTuple):
    """What one chunk has added; its numbers may still be on their way from a device."""

    peer: int
    factor: float
    sent: Fetch
    received: Fetch


class Drift:
    """Sums the jumps of (x + x̃)/2, for each peer, over exchanges and sampled elements.

    The two ends' sums cancel when both applied the same jumps.

    Args:
        site: where the chunks are staged.
        plan: the chunks of an exchange.
    """

    def __init__(self, site: Site, plan: Sequence[Chunk]) -> None:
        self._site = site
        self._sums: dict[int, float] = {}
        self._coming: deque[_Jump] = deque()
        self.checked = sum(min(CHECKED, stop - start) for _, start, stop in plan)
        """Elements that enter it."""

    def add(self, peer: int, factor: float, sent: Array, received: Array) -> None:
        """A chunk was applied; `factor` · (received − sent) was added to (x + x̃)/2."""
        # Staging memory, not x: the order of the stream is enough, no turn is needed.
        heads = self._site.fetch(sent[:CHECKED]), self._site.fetch(received[:CHECKED])
        self._coming.append(_Jump(peer, factor, *heads))
        # In the order in which they were made: then sums have the same bits every time.
        while self._coming and self._coming[0].received.ready():
            self._count(self._coming.popleft())

    def by_peer(self) -> dict[int, float]:
        """The sums; waits for those that are still on their way."""
        while self._coming:
            self._count(self._coming.popleft())
        return self._sums

    def restore(self, sums: dict[int, float]) -> None:
        """Go on from what `by_peer` gave."""
        self._sums.update(sums)

    def _count(self, jump: _Jump) -> None:
        change = _sum(jump.received) - _sum(jump.sent)
        self._sums[jump.peer] = self._sums.get(jump.peer, 0.0) + jump.factor * change


def _sum(values: Fetch) -> float:
    """The same at both ends, to the last bit, and cheap to read."""
    return float(np.add.reduce(widen(values.values())))
