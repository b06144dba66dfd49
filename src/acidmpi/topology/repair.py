"""A graph after deaths: the survivors' edges, and as few new ones as hold them together.

A *hole* is a set of dead ranks that hang together in the whole graph; its *rim* are the
survivors beside it. The repair depends on the whole graph and the set of the dead alone,
so that survivors that know of the same deaths have the same graph, in whatever order the
news came. In steps:

1. the edges between survivors stay;
2. a hole with a rim of two is bridged: its two neighbours become neighbours. A ring
   stays a ring, a path a path, and no rank gets more neighbours than it had;
3. if the graph is still apart, the pieces around each hole are joined in a chain, in the
   order of their lowest ranks; one edge less than there are pieces is added.

A new edge weighs as much as the mean of the edges that its two ends have lost.
"""

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush

import numpy as np

from acidmpi.errors import TopologyError
from acidmpi.topology.graph import Edge, Topology


def repaired(topology: Topology, dead: Iterable[int]) -> Topology:
    """`topology` without `dead`, in the same numbering, joined again where it fell apart.

    Args:
        topology: before these deaths; it may have been repaired already, and what comes
            out is the same as if all had died at once.
        dead: ranks that are to have no edges from now on.

    Raises:
        TopologyError: nobody survives, or there is no such rank.
    """
    whole = topology.whole or topology
    gone = frozenset(dead) | frozenset(topology.dead)
    _check(whole, gone)
    if not gone:
        return whole
    repair = _Repair(whole, gone)
    repair.bridge()
    repair.join()
    edges = tuple(sorted(repair.edges))
    weights = tuple(repair.edges[edge] for edge in edges)
    name, absolute = whole.name, whole.absolute
    return Topology(
        whole.size, edges, weights, name, absolute, tuple(sorted(gone)), whole
    )


def compacted(topology: Topology) -> Topology:
    """`topology` with its survivors numbered anew, in order, and no trace of the dead."""
    number = {int(rank): k for k, rank in enumerate(topology.survivors)}
    edges = tuple((number[a], number[b]) for a, b in topology.edges)
    name, absolute = topology.name, topology.absolute
    return Topology(len(number), edges, topology.weights, name, absolute)


def _check(whole: Topology, gone: frozenset[int]) -> None:
    strangers = sorted(rank for rank in gone if not 0 <= rank < whole.size)
    if strangers:
        raise TopologyError(
            f"dead ranks must be in 0..{whole.size - 1}, got {strangers}"
        )
    if len(gone) == whole.size:
        raise TopologyError(
            f"a graph needs a survivor, got {whole.size} dead of {whole.size}"
        )


class _Repair:
    """The graph while it is mended.

    Args:
        whole: the graph before any death.
        gone: who has died.
    """

    def __init__(self, whole: Topology, gone: frozenset[int]) -> None:
        self.edges: dict[Edge, float] = {}
        self._lost: dict[int, list[float]] = {}
        self._degree = [0] * whole.size
        self._offers = 0
        self._pieces = _Pieces(whole.size)
        for edge, weight in zip(whole.edges, whole.weights, strict=True):
            alive = [rank for rank in edge if rank not in gone]
            if len(alive) == 2:
                self._add(edge, weight)
            for rank in alive:
                if len(alive) == 1:
                    self._lost.setdefault(rank, []).append(weight)
        self._rims = [sorted(rim) for rim in _rims(whole, gone) if rim]

    def bridge(self) -> None:
        """Close each hole that has two neighbours."""
        for rim in self._rims:
            if len(rim) == 2:
                self._connect(rim[0], rim[1])

    def join(self) -> None:
        """Chain the pieces around each hole."""
        for rim in self._rims:
            pieces: dict[int, list[int]] = {}
            for rank in rim:
                pieces.setdefault(self._pieces.of(rank), []).append(rank)
            self._chain(list(pieces.values()))

    def _chain(self, pieces: list[list[int]]) -> None:
        """Each piece to those before it; nobody gets more than two edges in one hole."""
        joined: list[tuple[int, int, int, int]] = []
        self._offer(joined, pieces[0])
        for piece in pieces[1:]:
            gained, _, _, here = heappop(joined)
            there = min(piece, key=self._degree.__getitem__)
            self._connect(here, there)
            self._offer(joined, [here], gained + 1)
            self._offer(joined, [there], 1)
            self._offer(joined, [rank for rank in piece if rank != there])

    def _offer(
        self, joined: list[tuple[int, int, int, int]], ranks: list[int], gained: int = 0
    ) -> None:
        """Ranks to join to: who has gained least here, has fewest edges, came last."""
        for rank in ranks:
            self._offers += 1
            heappush(joined, (gained, self._degree[rank], -self._offers, rank))

    def _connect(self, first: int, second: int) -> None:
        edge = min(first, second), max(first, second)
        if edge not in self.edges:
            lost = self._lost[first] + self._lost[second]
            self._add(edge, float(np.mean(lost)))

    def _add(self, edge: Edge, weight: float) -> None:
        self.edges[edge] = weight
        self._pieces.join(*edge)
        for rank in edge:
            self._degree[rank] += 1


class _Pieces:
    """Which ranks hang together (disjoint sets).

    Args:
        size: number of ranks, each a piece of its own at first.
    """

    def __init__(self, size: int) -> None:
        self._parents = list(range(size))

    def of(self, rank: int) -> int:
        """A rank that stands for the piece of `rank`."""
        parents = self._parents
        while parents[rank] != rank:
            parents[rank] = parents[parents[rank]]
            rank = parents[rank]
        return rank

    def join(self, first: int, second: int) -> None:
        """Make one piece of two; the lowest rank stands for it."""
        low, high = sorted((self.of(first), self.of(second)))
        self._parents[high] = low


def _rims(whole: Topology, gone: frozenset[int]) -> Iterator[set[int]]:
    """The survivors beside each hole; holes in the order of their lowest ranks."""
    seen: set[int] = set()
    for rank in sorted(gone):
        if rank not in seen:
            yield _rim(whole, gone, rank, seen)


def _rim(whole: Topology, gone: frozenset[int], rank: int, seen: set[int]) -> set[int]:
    rim: set[int] = set()
    waiting = [rank]
    seen.add(rank)
    while waiting:
        for peer in whole.neighbours(waiting.pop()):
            if peer not in gone:
                rim.add(peer)
            elif peer not in seen:
                seen.add(peer)
                waiting.append(peer)
    return rim
